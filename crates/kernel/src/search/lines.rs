//! Searching line by line, for patterns that begin with no literal and can't match across a line's end.
//!
//! Such a pattern is slow in itself, most of all in its Unicode meaning: an automaton can't decide `\b`
//! where bytes above 0x7F stand near. So it is asked only where it may match:
//!
//! 1. a *hint* finds lines that may hold a match: a literal of the pattern, or a run of bytes of certain
//!    classes (`\w [A-Z]\w`), which is looked for 32 bytes at a time;
//! 2. on a line that is all ASCII the pattern in its ASCII meaning decides: there both mean the same;
//! 3. on another, a *cover*, which matches wherever the pattern does and elsewhere too, decides whether the
//!    pattern itself must be asked.

use super::literals::Literals;
use super::rarity::bits;
use regex_automata::meta::Regex;
use regex_automata::util::prefilter::Prefilter;
use regex_automata::{Input, MatchKind, Span};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicodeRange, Hir, HirKind, Look, Repetition,
};
use std::ops::{ControlFlow, Range};

/// Below this many bits a hint is met so often that it only costs.
const HINT_BITS_MIN: f32 = 6.0;

#[derive(Debug)]
pub(super) struct Lines {
    hint: Option<Hint>,
    /// The pattern with every Unicode class cut down to ASCII, where it has any.
    ascii: Option<Regex>,
    /// Matches where the pattern does, and is an automaton on all bytes.
    cover: Option<Regex>,
}

#[derive(Debug)]
enum Hint {
    Literals(Prefilter),
    Run(ClassRun),
}

impl Hint {
    fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        match self {
            Hint::Literals(literals) => {
                literals.find(bytes, Span { start: from, end: bytes.len() }).map(|span| span.start)
            }
            Hint::Run(run) => run.find(bytes, from),
        }
    }
}

impl Lines {
    /// `None` where the pattern may match across lines, or gains nothing. `build` compiles an expression.
    pub(super) fn of(
        hir: &Hir,
        literals: Option<&Literals>,
        build: &dyn Fn(&Hir) -> Option<Regex>,
    ) -> Option<Lines> {
        if may_cross_lines(hir) {
            return None;
        }
        let literals =
            literals.filter(|literals| literals.bits >= HINT_BITS_MIN && literals.texts.len() <= 64);
        let literals = literals.and_then(|l| Prefilter::new(MatchKind::LeftmostFirst, &l.texts));
        let run = || ClassRun::of(hir).filter(|run| run.bits >= HINT_BITS_MIN);
        let hint = literals.map(Hint::Literals).or_else(|| run().map(Hint::Run));
        if !is_unicode(hir) {
            return hint.map(|hint| Lines { hint: Some(hint), ascii: None, cover: None });
        }
        Some(Lines { hint, ascii: Some(build(&ascii(hir))?), cover: Some(build(&cover(hir))?) })
    }

    /// Calls `found` with each match of `exact`.
    pub(super) fn each(
        &self,
        exact: &Regex,
        bytes: &[u8],
        found: &mut dyn FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut at = 0;
        while at < bytes.len() {
            let line = match &self.hint {
                Some(hint) => match hint.find(bytes, at) {
                    Some(candidate) => line_around(bytes, at, candidate),
                    None => break,
                },
                None => match first_above_ascii(bytes, at) {
                    Some(byte) => {
                        let line = line_around(bytes, at, byte);
                        matches(self.ascii.as_ref().unwrap_or(exact), bytes, at..line.start, found)?;
                        line
                    }
                    None => at..bytes.len(),
                },
            };
            at = line.end;
            self.line(exact, bytes, line, found)?;
        }
        ControlFlow::Continue(())
    }

    fn line(
        &self,
        exact: &Regex,
        bytes: &[u8],
        line: Range<usize>,
        found: &mut dyn FnMut(Range<usize>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(ascii) = self.ascii.as_ref().filter(|_| bytes[line.clone()].is_ascii()) {
            return matches(ascii, bytes, line, found);
        }
        let input = Input::new(bytes).range(line.clone());
        match &self.cover {
            Some(cover) if !cover.is_match(input) => ControlFlow::Continue(()),
            _ => matches(exact, bytes, line, found),
        }
    }
}

/// Calls `found` with each match that is not empty.
pub(super) fn matches(
    regex: &Regex,
    bytes: &[u8],
    range: Range<usize>,
    found: &mut dyn FnMut(Range<usize>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for m in regex.find_iter(Input::new(bytes).range(range)) {
        if !m.is_empty() {
            found(m.range())?;
        }
    }
    ControlFlow::Continue(())
}

/// The line that holds the byte at `at`, its end included, and nothing before `from`, where a line begins.
fn line_around(bytes: &[u8], from: usize, at: usize) -> Range<usize> {
    let start = memchr::memrchr(b'\n', &bytes[from..at]).map_or(from, |n| from + n + 1);
    let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n + 1);
    start..end
}

fn first_above_ascii(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    for block in bytes[from..].chunks(1 << 10) {
        if !block.is_ascii() {
            return block.iter().position(|b| !b.is_ascii()).map(|n| at + n);
        }
        at += block.len();
    }
    None
}

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes([u64; 4]);

impl Bytes {
    const EMPTY: Bytes = Bytes([0; 4]);

    fn range(low: u8, high: u8) -> Bytes {
        let mut set = Bytes::EMPTY;
        (low..=high).for_each(|b| set.insert(b));
        set
    }

    fn insert(&mut self, b: u8) {
        self.0[usize::from(b >> 6)] |= 1 << (b & 63);
    }

    fn contains(&self, b: u8) -> bool {
        self.0[usize::from(b >> 6)] & (1 << (b & 63)) != 0
    }

    fn or(mut self, other: Bytes) -> Bytes {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=255).filter(|b| self.contains(*b))
    }

    /// As ranges of first byte and length less one.
    fn ranges(&self) -> Vec<(u8, u8)> {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for b in self.iter() {
            match ranges.last_mut() {
                Some((low, more)) if u16::from(*low) + u16::from(*more) + 1 == u16::from(b) => *more += 1,
                _ => ranges.push((b, 0)),
            }
        }
        ranges
    }
}

/// Neighbouring bytes, each of a class, that stand in every match.
#[derive(Debug)]
struct ClassRun {
    /// How far from the run's first byte, and what stands there; the one that tells most comes first.
    classes: Vec<(usize, Vec<(u8, u8)>)>,
    len: usize,
    bits: f32,
}

/// The longest run that is looked for.
const RUN_MAX: usize = 4;
/// Positions that are looked at together.
const LANES: usize = 32;

impl ClassRun {
    /// The run that tells most.
    fn of(hir: &Hir) -> Option<ClassRun> {
        let mut runs = vec![Vec::new()];
        collect_runs(hir, &mut runs);
        let windows =
            runs.iter().flat_map(|run| (2..=RUN_MAX.min(run.len())).flat_map(|len| run.windows(len)));
        let worth = |window: &&[Bytes]| window.iter().map(|set| bits(set.iter())).sum::<f32>();
        let best = windows.max_by(|a, b| worth(a).total_cmp(&worth(b)))?;
        let mut order: Vec<usize> = (0..best.len()).collect();
        order.sort_by(|a, b| bits(best[*b].iter()).total_cmp(&bits(best[*a].iter())));
        let classes: Vec<_> = order.into_iter().map(|n| (n, best[n].ranges())).collect();
        Some(ClassRun { classes, len: best.len(), bits: worth(&best) })
    }

    fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while at + LANES + self.len <= bytes.len() {
            let block = &bytes[at..at + LANES + self.len];
            let mut all = [0xffu8; LANES];
            let mut any = true;
            for (offset, ranges) in &self.classes {
                let lanes = &block[*offset..*offset + LANES];
                let mut here = [0u8; LANES];
                for (low, more) in ranges {
                    for (here, b) in here.iter_mut().zip(lanes) {
                        *here |= if b.wrapping_sub(*low) <= *more { 0xff } else { 0 };
                    }
                }
                let mut left = 0;
                for (all, here) in all.iter_mut().zip(here) {
                    *all &= here;
                    left |= *all;
                }
                if left == 0 {
                    any = false;
                    break;
                }
            }
            if any && let Some(n) = all.iter().position(|lane| *lane != 0) {
                return Some(at + n);
            }
            at += LANES;
        }
        let is_at = |at: usize| {
            self.classes.iter().all(|(offset, ranges)| {
                let b = bytes[at + offset];
                ranges.iter().any(|(low, more)| b.wrapping_sub(*low) <= *more)
            })
        };
        (at..(bytes.len() + 1).saturating_sub(self.len)).find(|at| is_at(*at))
    }
}

/// Appends what every match holds byte by byte to the last run, and begins another run where it is open
/// what comes between.
fn collect_runs(hir: &Hir, runs: &mut Vec<Vec<Bytes>>) {
    let mut push = |set: Bytes| {
        if let Some(run) = runs.last_mut() {
            run.push(set);
        }
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => literal.0.iter().for_each(|b| push(Bytes::range(*b, *b))),
        HirKind::Class(class) => {
            let (first, last) = edges(class);
            push(first);
            if first != last || !class.is_utf8_ascii() {
                runs.push(vec![last]);
            }
        }
        HirKind::Capture(capture) => collect_runs(&capture.sub, runs),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect_runs(part, runs)),
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            if *min == 0 {
                runs.push(Vec::new());
                return;
            }
            collect_runs(sub, runs);
            if (*min, *max) != (1, Some(1)) {
                runs.push(Vec::new());
                collect_runs(sub, runs);
            }
        }
        HirKind::Alternation(_) => runs.push(Vec::new()),
    }
}

trait ClassExt {
    fn is_utf8_ascii(&self) -> bool;
}

impl ClassExt for Class {
    /// Whether each of its characters is one byte.
    fn is_utf8_ascii(&self) -> bool {
        match self {
            Class::Unicode(class) => class.is_ascii(),
            Class::Bytes(_) => true,
        }
    }
}

/// The bytes that a character of the class may begin and end with.
fn edges(class: &Class) -> (Bytes, Bytes) {
    match class {
        Class::Bytes(class) => {
            let set =
                class.ranges().iter().fold(Bytes::EMPTY, |set, r| set.or(Bytes::range(r.start(), r.end())));
            (set, set)
        }
        Class::Unicode(class) => {
            let ascii =
                ascii_ranges(class.ranges()).fold(Bytes::EMPTY, |set, (a, b)| set.or(Bytes::range(a, b)));
            if class.is_ascii() {
                return (ascii, ascii);
            }
            (ascii.or(Bytes::range(0xc2, 0xf4)), ascii.or(Bytes::range(0x80, 0xbf)))
        }
    }
}

fn ascii_ranges(ranges: &[ClassUnicodeRange]) -> impl Iterator<Item = (u8, u8)> {
    ranges.iter().filter(|r| r.start() <= '\x7f').map(|r| (r.start() as u8, r.end().min('\x7f') as u8))
}

/// Whether a match may hold a line's end.
fn may_cross_lines(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Class(class) => {
            let (first, _) = edges(class);
            first.contains(b'\n')
        }
        HirKind::Repetition(repetition) => may_cross_lines(&repetition.sub),
        HirKind::Capture(capture) => may_cross_lines(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(may_cross_lines),
    }
}

/// Whether the pattern means more than ASCII: a word boundary or a class of characters above it.
fn is_unicode(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Look(look) => ascii_look(*look) != *look,
        HirKind::Class(class) => !class.is_utf8_ascii(),
        HirKind::Empty | HirKind::Literal(_) => false,
        HirKind::Repetition(repetition) => is_unicode(&repetition.sub),
        HirKind::Capture(capture) => is_unicode(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(is_unicode),
    }
}

/// The pattern as it is on text that is all ASCII.
fn ascii(hir: &Hir) -> Hir {
    map(
        hir,
        &|class| {
            let ranges = ascii_ranges(class).map(|(a, b)| ClassBytesRange::new(a, b));
            Hir::class(Class::Bytes(ClassBytes::new(ranges)))
        },
        &|look| Hir::look(ascii_look(look)),
    )
}

/// A pattern that matches wherever this one does, and on whose automaton all bytes are alike: any bytes
/// above ASCII stand for any character there, and Unicode word boundaries are left out.
fn cover(hir: &Hir) -> Hir {
    map(
        hir,
        &|class| {
            let ascii = ascii_ranges(class).map(|(a, b)| ClassBytesRange::new(a, b));
            if class.iter().all(|r| r.end() <= '\x7f') {
                return Hir::class(Class::Bytes(ClassBytes::new(ascii)));
            }
            let above = Hir::class(Class::Bytes(ClassBytes::new([ClassBytesRange::new(0x80, 0xff)])));
            let char = Repetition { min: 1, max: Some(4), greedy: true, sub: Box::new(above) };
            Hir::alternation(vec![Hir::class(Class::Bytes(ClassBytes::new(ascii))), Hir::repetition(char)])
        },
        &|look| match ascii_look(look) == look {
            true => Hir::look(look),
            false => Hir::empty(),
        },
    )
}

fn ascii_look(look: Look) -> Look {
    match look {
        Look::WordUnicode => Look::WordAscii,
        Look::WordUnicodeNegate => Look::WordAsciiNegate,
        Look::WordStartUnicode => Look::WordStartAscii,
        Look::WordEndUnicode => Look::WordEndAscii,
        Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
        Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
        other => other,
    }
}

/// The expression with its Unicode classes and its looks replaced.
fn map(hir: &Hir, class: &dyn Fn(&[ClassUnicodeRange]) -> Hir, look: &dyn Fn(Look) -> Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(Class::Bytes(_)) => hir.clone(),
        HirKind::Class(Class::Unicode(unicode)) => class(unicode.ranges()),
        HirKind::Look(this) => look(*this),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(map(&repetition.sub, class, look)),
            ..repetition.clone()
        }),
        // Groups are asked of the pattern itself.
        HirKind::Capture(capture) => map(&capture.sub, class, look),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(|part| map(part, class, look)).collect()),
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.iter().map(|part| map(part, class, look)).collect())
        }
    }
}
