//! Searching for many patterns at once.
//!
//! A few patterns are quickest one after the other, each with its own prefilter on bytes that are still in
//! cache. At hundreds that takes hundreds of passes, and one automaton for all is slowed by its own size. So
//! here one pass looks at every four bytes, folded to lower case, and asks a table of bits whether they are
//! the rarest four of any pattern's literal; only where they are is that pattern asked.

use super::literals::Literals;
use super::rarity::bits;
use std::collections::BTreeMap;

/// From so many patterns on this is quicker than one after the other.
pub(super) const PATTERNS_MIN: usize = 16;
/// Bytes that are looked at together, and so the shortest literal that can be used.
const WINDOW: usize = 4;
/// Log2 of the table's bits: 16 KiB, which stays in the first-level cache.
const TABLE_BITS: u32 = 17;
const TABLE_WORDS: usize = (1 << TABLE_BITS) / 64;
/// More candidates than these in one text are not noted.
const ASKS_MAX: usize = 1 << 18;
/// More literals than these say too little of a pattern.
const LITERALS_MAX: usize = 300;

#[derive(Debug)]
pub(super) struct Set {
    table: Box<[u64; TABLE_WORDS]>,
    /// The literals that hold each window.
    entries: BTreeMap<u32, Vec<Entry>>,
    /// How many patterns there are.
    patterns: usize,
    /// Patterns that have no literal of use: to be asked of every text.
    pub(super) others: Vec<usize>,
    /// Whether all literals are ASCII, and no pattern is among the others.
    pub(super) decides_on_ascii: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    pattern: u32,
    /// From the literal's first byte to the window.
    back: u32,
    /// The literal, folded.
    literal: Vec<u8>,
    /// Whether each match begins with one of the pattern's literals, so that it is asked just there.
    leads: bool,
}

/// Where a pattern must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// For a match in all of the text.
    Everywhere,
    /// For a match that begins just here.
    At(usize),
}

impl Set {
    /// A set of patterns, each given by the literals that lead its matches and those that are in them.
    pub(super) fn of<'a>(
        patterns: impl Iterator<Item = (Option<&'a Literals>, Option<&'a Literals>)>,
    ) -> Set {
        let mut set = Set {
            table: Box::new([0; TABLE_WORDS]),
            entries: BTreeMap::new(),
            patterns: 0,
            others: Vec::new(),
            decides_on_ascii: true,
        };
        let usable =
            |l: &&Literals| l.texts.len() <= LITERALS_MAX && l.texts.iter().all(|t| t.len() >= WINDOW);
        for (pattern, (leading, required)) in patterns.enumerate() {
            set.patterns = pattern + 1;
            match (leading.filter(usable), required.filter(usable)) {
                (Some(leading), _) => set.add(pattern, leading, true),
                (None, Some(required)) => set.add(pattern, required, false),
                (None, None) => {
                    set.others.push(pattern);
                    set.decides_on_ascii = false;
                }
            }
        }
        set
    }

    fn add(&mut self, pattern: usize, literals: &Literals, leads: bool) {
        self.decides_on_ascii &= literals.is_ascii();
        let mut folded: Vec<Vec<u8>> =
            literals.texts.iter().map(|text| text.iter().map(|b| fold(*b)).collect()).collect();
        folded.sort_unstable();
        folded.dedup();
        for literal in folded {
            let worth = |at: &usize| literal[*at..at + WINDOW].iter().map(|b| bits([*b])).sum::<f32>();
            let rarest = (0..=literal.len() - WINDOW).max_by(|a, b| worth(a).total_cmp(&worth(b)));
            let back = rarest.unwrap_or_default();
            let window =
                u32::from_le_bytes([literal[back], literal[back + 1], literal[back + 2], literal[back + 3]]);
            let slot = slot(window);
            self.table[slot / 64] |= 1 << (slot % 64);
            let entry = Entry { pattern: pattern as u32, back: back as u32, literal, leads };
            self.entries.entry(window).or_default().push(entry);
        }
    }

    /// Fills `asks` with the patterns that may match and where, in the patterns' order.
    pub(super) fn candidates(&self, bytes: &[u8], asks: &mut Vec<(usize, Ask)>) {
        asks.clear();
        asks.extend(self.others.iter().map(|pattern| (*pattern, Ask::Everywhere)));
        for (at, window) in bytes.windows(WINDOW).enumerate() {
            let window = u32::from_le_bytes([window[0], window[1], window[2], window[3]]) | FOLD;
            let slot = slot(window);
            if self.table[slot / 64 % TABLE_WORDS] & (1 << (slot % 64)) != 0 {
                self.look(bytes, at, window, asks);
            }
        }
        if asks.len() >= ASKS_MAX {
            // So many candidates say nothing: every pattern is asked.
            asks.clear();
            asks.extend((0..self.patterns).map(|pattern| (pattern, Ask::Everywhere)));
        }
        asks.sort_unstable();
        asks.dedup();
    }

    #[cold]
    fn look(&self, bytes: &[u8], at: usize, window: u32, asks: &mut Vec<(usize, Ask)>) {
        if asks.len() >= ASKS_MAX {
            return;
        }
        for entry in self.entries.get(&window).into_iter().flatten() {
            let Some(start) = at.checked_sub(entry.back as usize) else { continue };
            let here = bytes.get(start..start + entry.literal.len());
            if here.is_some_and(|here| here.iter().zip(&entry.literal).all(|(b, folded)| fold(*b) == *folded))
            {
                let ask = if entry.leads { Ask::At(start) } else { Ask::Everywhere };
                asks.push((entry.pattern as usize, ask));
            }
        }
    }
}

/// Sets the bit by which ASCII's cases differ. Other bytes that it makes alike only cost a look.
const FOLD: u32 = 0x2020_2020;

fn fold(b: u8) -> u8 {
    b | 0x20
}

/// Where the table has the bit of a window, by Knuth's multiplicative hash.
fn slot(window: u32) -> usize {
    (window.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize
}
