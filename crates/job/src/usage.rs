//! Usage for other systems: each line of the ledger as a CloudEvent (1.0, JSON format).
//!
//! An event's id is made of what the line is unique by, so whoever gets one twice knows it: delivery is at least once.
//! The cursor is the last line's number, and lines have their numbers in the order in which they were committed, so
//! whoever reads on from it misses none.

use crate::ledger::{self, Line};
use crate::view;
use dragnet_pattern::{Error, Store};
use serde_json::{Value as Json, json};

/// The media type of several events in one body.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// What an event's `source` is: ids are unique within it.
const SOURCE: &str = "/dragnet/ledger";

/// Events, and where the next ones begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// One for each line.
    pub events: Vec<Json>,
    /// The number of the last line that was read.
    pub cursor: i64,
}

/// The next events after a cursor, of one tenant or of all; none when nothing is new.
///
/// # Errors
/// Those of the store.
pub async fn after(
    store: &dyn Store,
    cursor: i64,
    tenant: Option<&str>,
    most: usize,
) -> Result<Events, Error> {
    let lines = ledger::after(store, cursor, tenant, most).await?;
    let cursor = lines.last().map_or(cursor, |line| line.id);
    Ok(Events { events: lines.iter().map(event).collect(), cursor })
}

fn event(line: &Line) -> Json {
    let kind = if line.reverses.is_some() { "dragnet.usage.reversed" } else { "dragnet.usage.metered" };
    json!({
        "specversion": "1.0",
        "id": format!("{}/{}/{}", line.work, line.meter, line.seq),
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
