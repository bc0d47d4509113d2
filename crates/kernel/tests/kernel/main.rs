//! The kernel against archives that are made here, whole and broken.

mod archive;
mod damage;
mod layers;
mod split;
