//! The layers of a record: what can be searched of it.

use serde::{Deserialize, Serialize};

/// A way to look at a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The record's own headers.
    Warc,
    /// The record's block as it is stored.
    Raw,
    /// The HTTP head in the block.
    Headers,
    /// The HTTP body with transfer coding, content coding and charset undone; the block where it isn't HTTP.
    Body,
    /// What a person would read of the body, where it is HTML; the body where it is other text.
    Text,
}

impl Layer {
    /// Every layer.
    pub(crate) const ALL: [Layer; 5] = [Layer::Warc, Layer::Raw, Layer::Headers, Layer::Body, Layer::Text];

    /// The layer's name in specs, hits and coverage.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Warc => "warc",
            Layer::Raw => "raw",
            Layer::Headers => "headers",
            Layer::Body => "body",
            Layer::Text => "text",
        }
    }
}
