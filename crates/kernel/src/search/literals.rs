//! The literals of a pattern: texts of which every match holds one.

use super::rarity::bits;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind};

/// Texts of which one stands in every match, and how much finding one tells.
#[derive(Debug, Clone)]
pub(super) struct Literals {
    pub(super) texts: Vec<Vec<u8>>,
    /// Bits of information of the most common of them.
    pub(super) bits: f32,
}

/// More parts of a pattern than these are not looked at: the work is quadratic in them.
const PARTS_MAX: usize = 100;

impl Literals {
    fn of(texts: Vec<Vec<u8>>) -> Option<Literals> {
        if texts.is_empty() || texts.iter().any(Vec::is_empty) {
            return None;
        }
        let each = |text: &Vec<u8>| text.iter().map(|b| bits([*b])).sum::<f32>();
        let least = texts.iter().map(each).fold(f32::INFINITY, f32::min);
        let bits = least - (texts.len() as f32).log2();
        Some(Literals { texts, bits })
    }

    /// Those that a match begins with.
    pub(super) fn leading(hir: &Hir) -> Option<Literals> {
        let seq = Extractor::new().extract(hir);
        let texts = seq.literals()?.iter().map(|literal| literal.as_bytes().to_vec()).collect();
        Literals::of(texts)
    }

    /// Those that tell most, wherever in a match they stand.
    pub(super) fn required(hir: &Hir) -> Option<Literals> {
        let leading = Literals::leading(hir);
        let inner = match hir.kind() {
            HirKind::Capture(capture) => Literals::required(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min > 0 => Literals::required(&repetition.sub),
            HirKind::Alternation(branches) => {
                let each: Option<Vec<_>> = branches.iter().map(Literals::required).collect();
                each.and_then(|each| Literals::of(each.into_iter().flat_map(|l| l.texts).collect()))
            }
            HirKind::Concat(parts) if parts.len() <= PARTS_MAX => (0..parts.len())
                .flat_map(|n| {
                    let tail = (n > 0).then(|| Hir::concat(parts[n..].to_vec()));
                    [tail.and_then(|tail| Literals::leading(&tail)), Literals::required(&parts[n])]
                })
                .flatten()
                .max_by(|a, b| a.bits.total_cmp(&b.bits)),
            _ => None,
        };
        [leading, inner].into_iter().flatten().max_by(|a, b| a.bits.total_cmp(&b.bits))
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.texts.iter().all(|text| text.is_ascii())
    }

    /// Whether JSON writes them as they are.
    pub(super) fn is_plain_in_json(&self) -> bool {
        let plain = |b: &u8| matches!(b, 0x20..=0x7e) && !b"\"\\/".contains(b);
        self.texts.iter().flatten().all(plain)
    }
}
