//! A search: named patterns over layers of chosen records, and what they compile to.
//!
//! The syntax is the `regex` crate's, the automata are `regex-automata`'s. What is ours is how a pattern is
//! asked: directly where a literal leads it, line by line where not ([`lines`]), all at once where there are
//! many ([`set`]).

mod lines;
mod literals;
mod rarity;
mod set;

use crate::filter::{Filter, FilterSpec};
use crate::{Error, Layer};
use lines::{Lines, matches};
use literals::Literals;
use regex_automata::meta::{BuildError, Regex};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::prefilter::Prefilter;
use regex_automata::{Anchored, Input, MatchKind, Span};
use regex_syntax::hir::Hir;
use serde::{Deserialize, Serialize};
use set::{Ask, Set};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// The longest pattern, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 10_000;
/// The most brackets within brackets in a pattern.
const NEST_MAX: u32 = 250;
/// The largest automaton that is built in full, in bytes: only of small patterns; others are built as they are needed.
const DFA_BYTES_MAX: usize = 40 << 10;
/// The most that the states of one pattern take which are built as they are needed, in bytes; at the limit they begin
/// anew, and a pattern that gains nothing by them is asked without.
const CACHE_BYTES_MAX: usize = 2 << 20;
/// The largest compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 10 << 20;
/// The most that all patterns of a search come to, in bytes, and again their states.
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
    /// The records that are searched; all where nothing is asked for.
    #[serde(default, skip_serializing_if = "FilterSpec::is_empty")]
    pub filter: FilterSpec,
    /// Of JSON lines the field that is searched, as `text` or `page.text`; of Parquet the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the digests that an archive states are checked; those that differ are named in the coverage.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// The most hits that one record gives, over all patterns; what is past it is a named limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_per_record: Option<u64>,
}

impl SearchSpec {
    /// A search of the default layer of all records.
    pub fn new(patterns: Vec<Pattern>) -> SearchSpec {
        SearchSpec {
            patterns,
            layers: default_layers(),
            filter: FilterSpec::default(),
            field: None,
            verify: false,
            hits_per_record: None,
        }
    }
}

/// The layers of a search that names none.
pub(crate) fn default_layers() -> Vec<Layer> {
    vec![Layer::Body]
}

/// A compiled search.
#[derive(Debug)]
pub struct Search {
    patterns: Vec<Compiled>,
    set: Option<Set>,
    /// For each pattern ASCII literals of which every match holds one; `None` where one has none.
    ascii_literals: Option<Vec<Prefilter>>,
    plain_literals: bool,
    pub(crate) layers: Vec<Layer>,
    pub(crate) filter: Filter,
    pub(crate) field: Option<String>,
    pub(crate) verify: bool,
    pub(crate) hits_per_record: Option<u64>,
}

#[derive(Debug)]
struct Compiled {
    name: String,
    regex: Regex,
    lines: Option<Lines>,
}

/// Below this many bits a literal is met so often that a pattern is better asked line by line.
const LEADING_BITS_MIN: f32 = 12.0;

impl Search {
    /// Whether a spec compiles, at a small part of what that costs: nothing is built that a scan would run.
    ///
    /// # Errors
    /// Those of [`Search::compile`].
    pub fn check(spec: &SearchSpec) -> Result<(), Error> {
        let bytes_max = compiled_bytes_max(spec)?;
        for pattern in &spec.patterns {
            let hir = parse(pattern)?;
            fits(&hir, bytes_max).map_err(|e| not_built(spec, pattern, &e))?;
        }
        Filter::compile(&spec.filter).map(drop)
    }

    /// Compiles a spec.
    ///
    /// # Errors
    /// [`Error::Pattern`] names the pattern that is malformed, too long or too large; [`Error::Search`]
    /// says what else is wrong.
    pub fn compile(spec: &SearchSpec) -> Result<Search, Error> {
        let bytes_max = compiled_bytes_max(spec)?;
        let mut patterns = Vec::new();
        let mut literals = Vec::new();
        for pattern in &spec.patterns {
            let hir = parse(pattern)?;
            let regex = build(&hir, bytes_max).map_err(|e| not_built(spec, pattern, &e))?;
            let (leading, required) = (Literals::leading(&hir), Literals::required(&hir));
            let is_led = leading.as_ref().is_some_and(|leading| leading.bits >= LEADING_BITS_MIN);
            let lines = (!is_led)
                .then(|| Lines::of(&hir, required.as_ref(), &|hir| build(hir, bytes_max).ok()))
                .flatten();
            patterns.push(Compiled { name: pattern.name.clone(), regex, lines });
            literals.push((leading, required));
        }
        let of_all = || literals.iter().map(|(leading, required)| (leading.as_ref(), required.as_ref()));
        let mut layers = spec.layers.clone();
        layers.sort_unstable();
        layers.dedup();
        Ok(Search {
            set: (patterns.len() >= set::PATTERNS_MIN).then(|| Set::of(of_all())),
            ascii_literals: of_all().map(|(_, required)| ascii_prefilter(required?)).collect(),
            plain_literals: of_all().all(|(_, required)| required.is_some_and(Literals::is_plain_in_json)),
            patterns,
            layers,
            filter: Filter::compile(&spec.filter)?,
            field: spec.field.clone(),
            verify: spec.verify,
            hits_per_record: spec.hits_per_record,
        })
    }

    /// The patterns' names, in the order of the spec.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.name.as_str())
    }

    pub(crate) fn name(&self, pattern: usize) -> &str {
        &self.patterns[pattern].name
    }

    /// Calls `found` with each match that is not empty: pattern by pattern, and each one's from left to
    /// right without overlaps.
    pub(crate) fn each(
        &self,
        bytes: &[u8],
        asks: &mut Asks,
        found: &mut dyn FnMut(usize, Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &self.set {
            Some(set) => {
                set.candidates(bytes, &mut asks.0);
                let mut all = asks.0.chunk_by(|(a, _), (b, _)| a == b);
                all.try_for_each(|asks| self.ask(asks, bytes, found))
            }
            None => self
                .patterns
                .iter()
                .enumerate()
                .try_for_each(|(n, pattern)| pattern.each(bytes, &mut |range| found(n, range))),
        }
    }

    /// Asks one pattern where the set says that it may match.
    fn ask(
        &self,
        asks: &[(usize, Ask)],
        bytes: &[u8],
        found: &mut dyn FnMut(usize, Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut end = 0;
        for (n, ask) in asks {
            let pattern = &self.patterns[*n];
            let start = match ask {
                Ask::Everywhere => return pattern.each(bytes, &mut |range| found(*n, range)),
                Ask::At(start) => *start,
            };
            if start < end {
                continue;
            }
            let input = Input::new(bytes).range(start..).anchored(Anchored::Yes);
            if let Some(m) = pattern.regex.find(input).filter(|m| !m.is_empty()) {
                end = m.end();
                found(*n, m.range())?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether bytes in which ASCII stands for itself may hold a match, whatever else they are decoded to.
    pub(crate) fn may_match(&self, bytes: &[u8], asks: &mut Asks) -> bool {
        match (&self.set, &self.ascii_literals) {
            (Some(set), _) if set.decides_on_ascii => {
                set.candidates(bytes, &mut asks.0);
                !asks.0.is_empty()
            }
            (_, Some(literals)) => {
                literals.iter().any(|l| l.find(bytes, Span { start: 0, end: bytes.len() }).is_some())
            }
            (_, None) => true,
        }
    }

    /// Whether every match holds a literal that JSON writes as it is: no quote, backslash, slash or control
    /// character.
    pub(crate) fn has_plain_literals(&self) -> bool {
        self.plain_literals
    }

    /// What the groups of a pattern matched, by name or number, where a match begins at `start`.
    pub(crate) fn captures<'b>(
        &self,
        pattern: usize,
        bytes: &'b [u8],
        start: usize,
    ) -> BTreeMap<String, &'b [u8]> {
        let regex = &self.patterns[pattern].regex;
        if regex.captures_len() == 1 {
            return BTreeMap::new();
        }
        let mut captures = regex.create_captures();
        regex.search_captures(&Input::new(bytes).range(start..).anchored(Anchored::Yes), &mut captures);
        let Some(pid) = captures.pattern() else { return BTreeMap::new() };
        let names = captures.group_info().pattern_names(pid).enumerate().skip(1);
        names
            .filter_map(|(n, name)| {
                let group = &bytes[captures.get_group(n)?.range()];
                Some((name.map_or(n.to_string(), str::to_owned), group))
            })
            .collect()
    }
}

/// Memory that searches use again.
#[derive(Debug, Default)]
pub(crate) struct Asks(Vec<(usize, Ask)>);

impl Compiled {
    fn each(&self, bytes: &[u8], found: &mut dyn FnMut(Range<usize>) -> ControlFlow<()>) -> ControlFlow<()> {
        match &self.lines {
            Some(lines) => lines.each(&self.regex, bytes, found),
            None => matches(&self.regex, bytes, 0..bytes.len(), found),
        }
    }
}

/// A prefilter for literals of ASCII alone.
fn ascii_prefilter(literals: &Literals) -> Option<Prefilter> {
    if !literals.is_ascii() {
        return None;
    }
    Prefilter::new(MatchKind::LeftmostFirst, &literals.texts)
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

fn parse(pattern: &Pattern) -> Result<Hir, Error> {
    if pattern.regex.len() > PATTERN_BYTES_MAX {
        return Err(of(
            pattern,
            &format!("{} bytes long, and {PATTERN_BYTES_MAX} is the most", pattern.regex.len()),
        ));
    }
    regex_syntax::ParserBuilder::new()
        .multi_line(true)
        .case_insensitive(pattern.case_insensitive)
        .utf8(false)
        .nest_limit(NEST_MAX)
        .build()
        .parse(&pattern.regex)
        .map_err(|e| of(pattern, &e.to_string()))
}

/// The most that one pattern of a search may come to, in bytes, if all else of it that is not a pattern's own is right.
fn compiled_bytes_max(spec: &SearchSpec) -> Result<usize, Error> {
    if spec.patterns.is_empty() {
        return Err(Error::Search("no pattern: give at least one".into()));
    }
    if spec.layers.is_empty() {
        return Err(Error::Search("no layer: leave `layers` out for `body`, or name some".into()));
    }
    let mut names = std::collections::HashSet::new();
    for pattern in &spec.patterns {
        check_name(&pattern.name)?;
        if !names.insert(&pattern.name) {
            return Err(of(pattern, "the name is given twice: each pattern needs its own"));
        }
    }
    Ok(COMPILED_BYTES_MAX.min(ALL_COMPILED_BYTES_MAX / spec.patterns.len()))
}

/// Whether [`build`] would succeed. The automaton that reads forwards tells, in a third of the time; what is read
/// backwards may come to more, so that what is not far below the limit is built to know.
fn fits(hir: &Hir, bytes_max: usize) -> Result<(), Box<BuildError>> {
    let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(bytes_max));
    match NFA::compiler().configure(config).build_from_hir(hir) {
        Ok(forwards) if forwards.memory_usage() <= bytes_max / 16 => Ok(()),
        _ => build(hir, bytes_max).map(drop),
    }
}

fn build(hir: &Hir, bytes_max: usize) -> Result<Regex, Box<BuildError>> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(bytes_max))
        .onepass_size_limit(Some(bytes_max.min(1 << 20)))
        .dfa_size_limit(Some(DFA_BYTES_MAX))
        .hybrid_cache_capacity(bytes_max.min(CACHE_BYTES_MAX));
    Regex::builder().configure(config).build_from_hir(hir).map_err(Box::new)
}

fn not_built(spec: &SearchSpec, pattern: &Pattern, e: &BuildError) -> Error {
    let Some(bytes_max) = e.size_limit() else { return of(pattern, &e.to_string()) };
    let n = spec.patterns.len();
    let reason = format!(
        "too large when compiled: {bytes_max} bytes are the most for one of {n} patterns: use smaller repetitions, or split \
         it into several patterns"
    );
    of(pattern, &reason)
}

fn of(pattern: &Pattern, reason: &str) -> Error {
    Error::Pattern { name: pattern.name.clone(), reason: reason.into() }
}
