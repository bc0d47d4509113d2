//! Cursors that are numbers.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// A cursor of a list that is numbered from 0.
pub(crate) fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let wrong = || D::Error::invalid_value(Unexpected::Signed(number), &"a cursor of this list");
    if number < 0 { Err(wrong()) } else { Ok(Some(number)) }
}
