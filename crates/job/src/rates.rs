//! The rates file, and money: integers in millionths of the currency, rounded up once per line.

use serde::{Deserialize, Serialize};

/// The rates of a service that names none.
const DEFAULT: &str = include_str!("rates.toml");

/// What is counted and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Stands on every line that was priced by them.
    pub version: String,
    /// ISO 4217.
    pub currency: String,
    /// In the order of a bill's lines.
    pub meter: Vec<Meter>,
}

/// One thing that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meter {
    /// `input_bytes`, `records` or `hits`.
    pub name: String,
    /// What a price is for, as a bill shows it.
    pub unit: String,
    /// How many of what is counted make one unit.
    pub per: u64,
    /// What one unit costs.
    pub price_micros: u64,
}

/// What can be metered: only what can't depend on luck.
const METERS: [&str; 3] = ["input_bytes", "records", "hits"];

impl Default for Rates {
    fn default() -> Rates {
        Rates::parse(DEFAULT).expect("the default rates are tested")
    }
}

impl Rates {
    /// Reads a rates file.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Rates, String> {
        let rates: Rates = toml::from_str(text).map_err(|e| e.to_string())?;
        for (n, meter) in rates.meter.iter().enumerate() {
            if rates.meter[..n].iter().any(|other| other.name == meter.name) {
                return Err(format!("the meter `{}` is given twice: each is charged once", meter.name));
            }
            if !METERS.contains(&meter.name.as_str()) {
                return Err(format!("there is no meter `{}`: use {}", meter.name, METERS.join(", ")));
            }
            if meter.per == 0 {
                return Err(format!("`per` of the meter `{}` is 0", meter.name));
            }
        }
        Ok(rates)
    }

    /// What so many stored bytes cost.
    pub fn input_micros(&self, bytes: u64) -> u64 {
        let meters = self.meter.iter().filter(|meter| meter.name == "input_bytes");
        meters.map(|meter| meter.amount_micros(bytes)).sum()
    }

    /// What a job costs at most, as far as its plan can tell: its bytes, and its hits where they are limited.
    pub fn most_micros(&self, bytes: u64, hits_max: Option<u64>) -> u64 {
        let hits = self.meter.iter().filter(|meter| meter.name == "hits");
        let hits: u64 = hits.map(|meter| hits_max.map_or(0, |max| meter.amount_micros(max))).sum();
        self.input_micros(bytes).saturating_add(hits)
    }

    /// Why no plan can tell what a job costs at most, if none can: what is found has a price, and no limit.
    pub fn open_ended(&self, hits_max: Option<u64>) -> Option<String> {
        let has_price =
            |name: &str| self.meter.iter().any(|meter| meter.name == name && meter.price_micros > 0);
        if has_price("records") {
            return Some(
                "`records` has a price, and nobody knows how many there are before they are read".into(),
            );
        }
        (has_price("hits") && hits_max.is_none())
            .then(|| "`hits` has a price, and the job has no limit on them: give `limits.hits`".into())
    }

    /// How many stored bytes can be read for so much, if bytes are all that costs anything.
    ///
    /// # Errors
    /// A sentence, when something else has a price: then the cut would depend on what is found.
    pub fn bytes_for(&self, micros: u64) -> Result<Option<u64>, String> {
        if let Some(meter) = self.meter.iter().find(|m| m.name != "input_bytes" && m.price_micros > 0) {
            return Err(format!(
                "`{}` has a price, so a limit on the cost can't be kept in advance",
                meter.name
            ));
        }
        let bytes = self.meter.iter().find(|m| m.name == "input_bytes" && m.price_micros > 0);
        Ok(bytes.map(|m| {
            let bytes = u128::from(micros) * u128::from(m.per) / u128::from(m.price_micros);
            u64::try_from(bytes).unwrap_or(u64::MAX)
        }))
    }
}

impl Meter {
    /// What a quantity costs, rounded up.
    pub fn amount_micros(&self, quantity: u64) -> u64 {
        let amount = (u128::from(quantity) * u128::from(self.price_micros)).div_ceil(u128::from(self.per));
        u64::try_from(amount).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_once() {
        let rates = Rates::default();
        let bytes = &rates.meter[0];
        let table = [(0, 0), (1, 1), (1 << 30, 500), ((1 << 30) + 1, 501), (u64::MAX, 8_589_934_592_000)];
        for (quantity, amount) in table {
            assert_eq!(bytes.amount_micros(quantity), amount, "{quantity}");
        }
        assert_eq!(rates.bytes_for(500), Ok(Some(1 << 30)));
    }

    #[test]
    fn knows_what_a_plan_can_not_tell() {
        let rates = |name: &str, price: u64| {
            let meter = format!("[[meter]]\nname='{name}'\nunit='one'\nper=1\nprice_micros={price}\n");
            Rates::parse(&format!("version='1'\ncurrency='EUR'\n{meter}")).unwrap()
        };
        let rows = [
            ("input_bytes", 1, None, false),
            ("hits", 0, None, false),
            ("hits", 1, None, true),
            ("hits", 1, Some(5), false),
            ("records", 0, None, false),
            ("records", 1, Some(5), true),
        ];
        for (meter, price, hits_max, is_open) in rows {
            assert_eq!(
                rates(meter, price).open_ended(hits_max).is_some(),
                is_open,
                "{meter} {price} {hits_max:?}"
            );
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let meter = |name: &str, per: u64| {
            format!("[[meter]]\nname='{name}'\nunit='one'\nper={per}\nprice_micros=1\n")
        };
        let rows = [
            (meter("smiles", 1), "`smiles`"),
            (meter("hits", 0), "`per` of the meter `hits` is 0"),
            (meter("hits", 1) + &meter("hits", 2), "`hits` is given twice"),
        ];
        for (meters, expected) in rows {
            let said = Rates::parse(&format!("version='1'\ncurrency='EUR'\n{meters}")).unwrap_err();
            assert!(said.contains(expected), "{said}");
        }
    }
}
