//! Usage for other systems: each line of the ledger as a CloudEvent (1.0, JSON format).
//!
//! An event's id is made of what the line is unique by, so whoever gets one twice knows it: delivery is at least once.
//! The cursor is the last line's number, and lines have their numbers in the order in which they were committed, so
//! whoever reads on from it misses none. A ledger that was put back from a backup gives numbers again: the cursor has a
//! mark of the line that it stands behind, and is refused where another stands there.

use crate::ledger::{self, Line};
use crate::view;
use dragnet_pattern::{self as pattern, Store};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The media type of several events in one body.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// What an event's `source` is: ids are unique within it.
const SOURCE: &str = "/dragnet/ledger";

/// Events, and where the next ones begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// One for each line.
    pub events: Vec<Json>,
    /// Behind the last line that was read.
    pub cursor: Cursor,
}

/// Where a reader stands: behind a line of the ledger, or before all of them. As text `LINE-MARK`, or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    line: i64,
    /// Nothing in a cursor that an older program has given: it is believed.
    mark: Option<u32>,
}

impl Cursor {
    fn behind(line: &Line) -> Cursor {
        Cursor { line: line.id, mark: Some(mark(line)) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Some(mark) => write!(f, "{}-{mark:08x}", self.line),
            None => write!(f, "{}", self.line),
        }
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cursor, Error> {
        let wrong = || Error::Cursor(text.chars().take(40).collect());
        let (line, mark) = match text.split_once('-') {
            Some((line, mark)) => (line, Some(u32::from_str_radix(mark, 16).map_err(|_| wrong())?)),
            None => (text, None),
        };
        let line = line.parse().ok().filter(|line| *line >= 0).ok_or_else(wrong)?;
        Ok(Cursor { line, mark })
    }
}

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] pattern::Error),
    /// This is no cursor.
    #[error("`{0}` is no cursor: take `0`, or one as it was given with the last events")]
    Cursor(String),
    /// What it was read from is not what is here.
    #[error(
        "the cursor `{0}` is of another ledger, as after a restore: begin again with `0`; what has arrived has the same id \
         when it comes again"
    )]
    OtherLedger(Cursor),
}

/// The next events after a cursor, of one tenant or of all; none when nothing is new.
///
/// # Errors
/// [`Error::OtherLedger`], and those of the store.
pub async fn after(
    store: &dyn Store,
    cursor: Cursor,
    tenant: Option<&str>,
    most: usize,
) -> Result<Events, Error> {
    if let Some(expected) = cursor.mark {
        let last = ledger::after(store, cursor.line - 1, None, 1).await?;
        if last.first().is_none_or(|line| line.id != cursor.line || mark(line) != expected) {
            return Err(Error::OtherLedger(cursor));
        }
    }
    let lines = ledger::after(store, cursor.line, tenant, most).await?;
    let cursor = lines.last().map_or(cursor, Cursor::behind);
    Ok(Events { events: lines.iter().map(event).collect(), cursor })
}

/// What a line is unique by, in every ledger.
fn id(line: &Line) -> String {
    format!("{}/{}/{}", line.work, line.meter, line.seq)
}

fn mark(line: &Line) -> u32 {
    let hash = Sha256::digest(id(line));
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn event(line: &Line) -> Json {
    let kind = if line.reverses.is_some() { "dragnet.usage.reversed" } else { "dragnet.usage.metered" };
    json!({
        "specversion": "1.0",
        "id": id(line),
        "source": SOURCE,
        "type": kind,
        "subject": line.tenant,
        "time": view::time(line.at_ms),
        "datacontenttype": "application/json",
        "data": {
            "line": line.id,
            "tenant": line.tenant,
            "job": line.work,
            "meter": line.meter,
            "quantity": line.quantity,
            "unit": line.unit,
            "unit_price_micros": line.price_micros,
            "amount_micros": line.amount_micros,
            "currency": line.currency,
            "rates_version": line.rates_version,
            "reverses": line.reverses,
            "reason": line.reason,
        },
    })
}
