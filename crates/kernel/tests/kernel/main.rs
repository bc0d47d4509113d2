//! The kernel against archives that are made here, whole and broken.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod archive;
mod damage;
mod formats;
mod fuzz;
mod layers;
mod patterns;
mod split;
