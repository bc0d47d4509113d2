//! The layers of a record: what can be searched of it.

use crate::{RECORD_BYTES_MAX, http};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

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
}

impl Layer {
    /// The layer's name in specs, hits and coverage.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Warc => "warc",
            Layer::Raw => "raw",
            Layer::Headers => "headers",
            Layer::Body => "body",
        }
    }
}

/// What could not be decoded, and what was searched in its place.
pub(crate) struct Undecoded {
    pub(crate) searched_instead: Layer,
    pub(crate) reason: String,
}

/// The `body` layer of an HTTP block: codings undone from the last to the first, then the charset.
pub(crate) fn http_body<'a>(block: &'a [u8], head: &http::Head) -> (Cow<'a, [u8]>, Option<Undecoded>) {
    let mut body = Cow::Borrowed(&block[head.len..]);
    for coding in head.transfer_encoding.iter().rev().chain(head.content_encoding.iter().rev()) {
        match http::decode(coding, &body, RECORD_BYTES_MAX) {
            Ok(Some(decoded)) => body = Cow::Owned(decoded),
            Ok(None) => {}
            Err(reason) => return (body, Some(Undecoded { searched_instead: Layer::Raw, reason })),
        }
    }
    let content_type = head.content_type.as_deref();
    if content_type.is_none_or(http::is_text) {
        let (decoded, reason) = http::to_utf8(body, content_type);
        return (decoded, reason.map(|reason| Undecoded { searched_instead: Layer::Raw, reason }));
    }
    (body, None)
}
