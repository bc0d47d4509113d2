//! A search: named patterns over layers, and what they compile to.

use crate::{Error, Layer};
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 10_000;
/// The largest compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 10 << 20;
/// The most that all patterns of a search come to, in bytes.
const ALL_COMPILED_BYTES_MAX: usize = 256 << 20;

/// A named pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// `[A-Za-z][A-Za-z0-9_.-]*`.
    #[serde(default = "default_name")]
    pub name: String,
    /// The `regex` crate's syntax, Unicode and multi-line.
    pub regex: String,
    /// Whether case is folded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub case_insensitive: bool,
}

fn default_name() -> String {
    "match".into()
}

/// What is to be searched for and where, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchSpec {
    /// At least one; names are unique.
    pub patterns: Vec<Pattern>,
    /// The layers that are searched; `body` where none is given.
    #[serde(default = "default_layers")]
    pub layers: Vec<Layer>,
    /// The most hits that one record gives, over all patterns; what is past it is a named limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_per_record: Option<u64>,
}

/// The layers of a search that names none.
pub(crate) fn default_layers() -> Vec<Layer> {
    vec![Layer::Body]
}

/// A compiled search.
#[derive(Debug)]
pub struct Search {
    pub(crate) patterns: Vec<(String, Regex)>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) hits_per_record: Option<u64>,
}

impl Search {
    /// Compiles a spec.
    ///
    /// # Errors
    /// [`Error::Pattern`] names the pattern that is malformed, too long or too large; [`Error::Search`]
    /// says what else is wrong.
    pub fn compile(spec: &SearchSpec) -> Result<Search, Error> {
        if spec.patterns.is_empty() {
            return Err(Error::Search("no pattern: give at least one".into()));
        }
        if spec.layers.is_empty() {
            return Err(Error::Search("no layer: leave `layers` out for `body`, or name some".into()));
        }
        let mut patterns: Vec<(String, Regex)> = Vec::new();
        for pattern in &spec.patterns {
            check_name(&pattern.name)?;
            if patterns.iter().any(|(name, _)| *name == pattern.name) {
                return Err(of(pattern, "the name is given twice: each pattern needs its own"));
            }
            let bytes_max = COMPILED_BYTES_MAX.min(ALL_COMPILED_BYTES_MAX / spec.patterns.len());
            patterns.push((pattern.name.clone(), compile(pattern, bytes_max)?));
        }
        let mut layers = spec.layers.clone();
        layers.sort_unstable();
        layers.dedup();
        Ok(Search { patterns, layers, hits_per_record: spec.hits_per_record })
    }

    /// The patterns' names, in the order of the spec.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|(name, _)| name.as_str())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    if first && chars.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(());
    }
    let reason = "a name begins with a letter and goes on with letters, digits, `_`, `.` and `-`".into();
    Err(Error::Pattern { name: name.into(), reason })
}

fn compile(pattern: &Pattern, compiled_bytes_max: usize) -> Result<Regex, Error> {
    if pattern.regex.len() > PATTERN_BYTES_MAX {
        return Err(of(
            pattern,
            &format!("{} bytes long, and {PATTERN_BYTES_MAX} is the most", pattern.regex.len()),
        ));
    }
    let regex = RegexBuilder::new(&pattern.regex)
        .multi_line(true)
        .case_insensitive(pattern.case_insensitive)
        .size_limit(compiled_bytes_max)
        .build()
        .map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => of(
                pattern,
                "too large when compiled: use smaller repetitions, or split it into several patterns",
            ),
            other => of(pattern, &other.to_string()),
        })?;
    Ok(regex)
}

fn of(pattern: &Pattern, reason: &str) -> Error {
    Error::Pattern { name: pattern.name.clone(), reason: reason.into() }
}
