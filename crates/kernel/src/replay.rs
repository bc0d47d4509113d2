//! Back from a hit to its record: a read of the range that the hit names, and nothing before it.

use crate::hit::{Hit, Stored};
use crate::kind::{Codec, Format, Kind};
use crate::object::{ReadAt, Slice};
use crate::records::{Framing, Item, Records, arc, warc};
use crate::search::{Pattern, Search, SearchSpec};
use crate::{Error, Layer, Range, Seam, http, scan, wacz};

/// A layer, and where in it the match is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The layer's bytes.
    pub layer: Vec<u8>,
    /// The match in them.
    pub at: std::ops::Range<usize>,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its header, its block, and the two line ends behind it.
    pub bytes: Vec<u8>,
    /// Whether the stored bytes hold nothing else.
    pub alone: bool,
}

/// Finds the layer of a hit again, and the match in it; `None` where it is not there.
///
/// # Errors
/// [`Error::Read`] and [`Error::Shrunk`] where the bytes can't be had.
pub fn replay(object: &dyn ReadAt, size: u64, hit: &Hit<'_>) -> Result<Option<Replayed>, Error> {
    let Stored::Bytes { offset, skip, .. } = hit.stored else { return Ok(None) };
    let Some(layer) = Layer::ALL.into_iter().find(|layer| layer.name() == hit.layer) else { return Ok(None) };
    let shown = shown(hit);
    let pattern = Pattern { name: "match".into(), regex: literal(&shown), case_insensitive: false };
    let field = hit.field.as_deref().map(str::to_owned);
    let search =
        Search::compile(&SearchSpec { layers: vec![layer], field, ..SearchSpec::new(vec![pattern]) })?;
    let begin = Some(Seam { offset, skip });
    let range = Range { uri: &hit.object, size, start: offset, end: offset + 1, begin, hits_max: None };
    let kind = Kind::of(object, &hit.object)?;
    let mut found = None;
    scan(object, kind, &range, &search, &mut |other: &Hit<'_>| {
        // Any place where the text stands shows the layer; the hit's own may be one that overlaps it.
        let at = hit.start as usize..hit.end as usize;
        let is_there = other.around().get(at.clone()).is_some_and(|here| here.starts_with(&shown));
        if found.is_none() && other.stored.skip() == skip && is_there {
            found = Some(Replayed { layer: other.around().to_vec(), at });
        }
        Ok(())
    })?;
    Ok(found)
}

/// The bytes that the hit shows.
fn shown(hit: &Hit<'_>) -> Vec<u8> {
    match &hit.match_base64 {
        Some(text) => crate::hit::from_base64(text),
        None => hit.matched.as_bytes().to_vec(),
    }
}

/// A pattern that finds them, or their beginning: a pattern's length has a limit.
fn literal(shown: &[u8]) -> String {
    shown.iter().take(500).map(|b| format!(r"(?-u:\x{b:02x})")).collect()
}

/// The record of a hit as WARC; `None` where it is in no archive or not there. A record of an ARC gets the
/// header that says the same (ISO 28500, 5).
///
/// # Errors
/// [`Error::Read`] and [`Error::Shrunk`] where the bytes can't be had.
pub fn record_of(object: &dyn ReadAt, size: u64, hit: &Hit<'_>) -> Result<Option<Copied>, Error> {
    let Stored::Bytes { offset, skip, .. } = hit.stored else { return Ok(None) };
    let kind = Kind::of(object, &hit.object)?;
    match kind.format {
        Format::Warc => copy(object, size, Framing::Warc, kind.codec, Seam { offset, skip }),
        Format::Arc => copy(object, size, Framing::Arc, kind.codec, Seam { offset, skip }),
        Format::Wacz => {
            let parts = wacz::parts(object, size)?.unwrap_or_default();
            let Some(part) = parts.iter().find(|part| (part.start..part.end()).contains(&offset)) else {
                return Ok(None);
            };
            let Some((framing, codec)) = part.archive else { return Ok(None) };
            let seam = Seam { offset: offset - part.start, skip };
            copy(&Slice { object, start: part.start }, part.len, framing, codec, seam)
        }
        _ => Ok(None),
    }
}

fn copy(
    archive: &dyn ReadAt,
    size: u64,
    framing: Framing,
    codec: Codec,
    seam: Seam,
) -> Result<Option<Copied>, Error> {
    let mut records = Records::new(archive, size, codec, framing, seam, size);
    let record = match records.next()? {
        Item::Record(record) if record.seam == seam => record,
        _ => return Ok(None),
    };
    let end: &[u8] = b"\r\n\r\n";
    Ok(Some(match framing {
        Framing::Warc => Copied { bytes: [record.head, record.block, end].concat(), alone: record.alone },
        Framing::Arc => {
            let says = match record.parse() {
                says if says.is_response() && !http::begins(record.block, false) => {
                    arc::parse_resource(record.head)
                }
                says => says,
            };
            let head = warc::head(&says, record.block);
            Copied { bytes: [&head, record.block, end].concat(), alone: false }
        }
    }))
}
