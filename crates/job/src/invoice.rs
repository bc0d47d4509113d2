//! An invoice: what the ledger says of a tenant and a month, as JSON, CSV or a page to print.
//!
//! A line belongs to the month (UTC) in which it was written, so an invoice of a month that is over never changes, from
//! an hour after its end on: a correction stands on the next one.

use crate::budget::month_of;
use crate::ledger::{self, Line};
use crate::view;
use dragnet_pattern::{Error, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How long after a month's end its invoice is final: a charge has the time of the step that makes it, which is written a
/// little later, and after an outage of the store minutes later.
const FINAL_AFTER_MS: i64 = 3_600_000;

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// Its number: the tenant and the month, so that there is one.
    pub number: String,
    /// Who owes it.
    pub tenant: String,
    /// The month, as `2026-11`.
    pub month: String,
    /// The first moment of the month, in RFC 3339.
    pub from: String,
    /// The first moment after it.
    pub to: String,
    /// Whether the month is over, so that nothing is added any more.
    pub is_final: bool,
    /// What was charged and taken back, in the order in which it was written.
    pub lines: Vec<InvoiceLine>,
    /// What each meter comes to.
    pub meters: Vec<MeterTotal>,
    /// What is owed, by currency.
    pub totals_micros: BTreeMap<String, i64>,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// Its number in the ledger.
    pub id: i64,
    /// When it was written.
    pub at: String,
    /// The job's id.
    pub job: String,
    /// What was counted.
    pub meter: String,
    /// How much of it.
    pub quantity: i64,
    /// What the price is for.
    pub unit: String,
    /// The price of one unit.
    pub unit_price_micros: i64,
    /// What the line comes to.
    pub amount_micros: i64,
    /// ISO 4217.
    pub currency: String,
    /// The rates by which it was priced.
    pub rates_version: String,
    /// The line that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<i64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The sum of a meter's lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterTotal {
    /// What was counted.
    pub meter: String,
    /// How much of it.
    pub quantity: i64,
    /// What it comes to.
    pub amount_micros: i64,
    /// ISO 4217.
    pub currency: String,
}

/// The first moment of a month and of the one after it, in milliseconds since 1970.
///
/// # Errors
/// A sentence, for what is no month.
pub fn span(month: &str) -> Result<(i64, i64), String> {
    let wrong = || format!("`{month}` is no month: write it as 2026-11");
    let is_month = month.len() == 7 && month.is_ascii();
    let (year, number) = month.split_once('-').filter(|_| is_month).ok_or_else(wrong)?;
    let (year, number): (i16, i8) =
        (year.parse().map_err(|_| wrong())?, number.parse().map_err(|_| wrong())?);
    if !(1970..=2999).contains(&year) {
        return Err(wrong());
    }
    let begins = |year: i16, number: i8| {
        let date = jiff::civil::Date::new(year, number, 1).map_err(|_| wrong())?;
        let time = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
        Ok::<i64, String>(time.timestamp().as_millisecond())
    };
    let next = if number == 12 { (year + 1, 1) } else { (year, number + 1) };
    Ok((begins(year, number)?, begins(next.0, next.1)?))
}

/// The invoice of a tenant for a month, as [`span`] takes it.
///
/// # Errors
/// Those of the store.
pub async fn of(store: &dyn Store, tenant: &str, span: (i64, i64), now_ms: i64) -> Result<Invoice, Error> {
    let lines = ledger::of_time(store, tenant, span.0, span.1).await?;
    let month = month_of(span.0);
    let mut meters: BTreeMap<(String, String), MeterTotal> = BTreeMap::new();
    let mut totals_micros: BTreeMap<String, i64> = BTreeMap::new();
    for line in &lines {
        let (meter, currency) = (line.meter.clone(), line.currency.clone());
        *totals_micros.entry(currency.clone()).or_default() += line.amount_micros;
        let total = meters.entry((currency.clone(), meter.clone())).or_insert(MeterTotal {
            meter,
            quantity: 0,
            amount_micros: 0,
            currency,
        });
        total.quantity += line.quantity;
        total.amount_micros += line.amount_micros;
    }
    Ok(Invoice {
        number: format!("{tenant}-{month}"),
        tenant: tenant.into(),
        month,
        from: view::time(span.0),
        to: view::time(span.1),
        is_final: now_ms >= span.1 + FINAL_AFTER_MS,
        lines: lines.into_iter().map(shown).collect(),
        meters: meters.into_values().collect(),
        totals_micros,
    })
}

fn shown(line: Line) -> InvoiceLine {
    InvoiceLine {
        id: line.id,
        at: view::time(line.at_ms),
        job: line.work,
        meter: line.meter,
        quantity: line.quantity,
        unit: line.unit,
        unit_price_micros: line.price_micros,
        amount_micros: line.amount_micros,
        currency: line.currency,
        rates_version: line.rates_version,
        reverses: line.reverses,
        reason: line.reason,
    }
}

impl Invoice {
    /// Its lines as CSV (RFC 4180), amounts in millionths.
    pub fn csv(&self) -> String {
        let head = "id,at,job,meter,quantity,unit,unit_price_micros,amount_micros,currency,rates_version,reverses,reason";
        let mut text = format!("{head}\r\n");
        for line in &self.lines {
            let numbers = (line.quantity, line.unit_price_micros, line.amount_micros);
            let fields: [String; 12] = [
                line.id.to_string(),
                line.at.clone(),
                line.job.clone(),
                line.meter.clone(),
                numbers.0.to_string(),
                line.unit.clone(),
                numbers.1.to_string(),
                numbers.2.to_string(),
                line.currency.clone(),
                line.rates_version.clone(),
                line.reverses.map(|id| id.to_string()).unwrap_or_default(),
                line.reason.clone().unwrap_or_default(),
            ];
            let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
            text.push_str(&fields.join(","));
            text.push_str("\r\n");
        }
        text
    }

    /// A page to print: no script, nothing from elsewhere.
    pub fn html(&self) -> String {
        let mut rows = String::new();
        for line in &self.lines {
            let note = match (&line.reason, line.reverses) {
                (Some(reason), Some(id)) => format!("takes back line {id}: {reason}"),
                _ => line.rates_version.clone(),
            };
            // Writing to a string can't fail.
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}</td><td><code>{}</code></td><td>{}</td><td class=n>{}</td><td class=n>{} / {}</td><td class=n>{} {}</td><td>{}</td></tr>",
                line.id,
                escaped(&line.at),
                escaped(&line.job),
                escaped(&line.meter),
                line.quantity,
                money(line.unit_price_micros),
                escaped(&line.unit),
                money(line.amount_micros),
                escaped(&line.currency),
                escaped(&note),
            );
        }
        let mut sums = String::new();
        for total in &self.meters {
            let (meter, currency) = (escaped(&total.meter), escaped(&total.currency));
            let _ = writeln!(
                sums,
                "<tr><td>{meter}</td><td class=n>{}</td><td class=n>{} {currency}</td></tr>",
                total.quantity,
                money(total.amount_micros)
            );
        }
        for (currency, micros) in &self.totals_micros {
            let _ = writeln!(
                sums,
                "<tr><th>total</th><td></td><th class=n>{} {}</th></tr>",
                money(*micros),
                escaped(currency)
            );
        }
        let state = if self.is_final { "" } else { " (not final: that is an hour after the month's end)" };
        include_str!("invoice.html")
            .replace("{number}", &escaped(&self.number))
            .replace("{tenant}", &escaped(&self.tenant))
            .replace("{from}", &escaped(&self.from))
            .replace("{to}", &escaped(&self.to))
            .replace("{state}", state)
            .replace("{sums}", &sums)
            .replace("{rows}", &rows)
    }
}

/// Millionths of a currency as a person reads them.
pub fn money(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000)
}

/// A field of CSV. What a spreadsheet would take for a formula is made text; numbers are ours.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '@', '\t', '\r'])
        || (field.starts_with('-') && field[1..].parse::<u64>().is_err());
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_and_ends() {
        let day = 86_400_000;
        for (month, days) in [("2026-02", 28), ("2028-02", 29), ("2026-12", 31), ("1970-01", 31)] {
            let (from, to) = span(month).unwrap();
            assert_eq!(to - from, days * day, "{month}");
            assert_eq!((month_of(from), month_of(to - 1)), (month.into(), month.into()));
        }
        for wrong in ["", "2026", "2026-13", "2026-00", "26-11", "2026-1", "2026-11-01", "20é6-1"] {
            assert!(span(wrong).unwrap_err().contains("write it as 2026-11"), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_text_in_every_format() {
        let line = InvoiceLine {
            id: 2,
            at: "2026-11-01T00:00:00Z".into(),
            job: "j".into(),
            meter: "hits".into(),
            quantity: -3,
            unit: "million".into(),
            unit_price_micros: 1,
            amount_micros: -1_500_000,
            currency: "EUR".into(),
            rates_version: "1".into(),
            reverses: Some(1),
            reason: Some("=1+1,\"<script>\"{rows}".into()),
        };
        let invoice = Invoice {
            number: "t-2026-11".into(),
            tenant: "t".into(),
            month: "2026-11".into(),
            from: String::new(),
            to: String::new(),
            is_final: true,
            lines: vec![line],
            meters: Vec::new(),
            totals_micros: [("EUR".into(), -1_500_000)].into(),
        };
        assert!(
            invoice
                .csv()
                .ends_with("hits,-3,million,1,-1500000,EUR,1,1,\"'=1+1,\"\"<script>\"\"{rows}\"\r\n")
        );
        let page = invoice.html();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;&quot;{rows}"), "{page}");
        assert!(page.contains("-1.500000 EUR"), "{page}");
    }
}
