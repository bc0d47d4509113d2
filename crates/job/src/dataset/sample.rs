//! An even sample of a list: one from each of as many equal stretches, by a fixed seed, so that the same list gives
//! the same sample.

/// Why not: any number does, as long as it stays.
const SEED: u64 = 0x6472_6167_6e65_7400;

/// Places in a list of `len`, ascending: `wanted` of them, or all.
pub(super) fn places(len: usize, wanted: usize) -> Vec<usize> {
    if wanted >= len {
        return (0..len).collect();
    }
    let border = |n: usize| (n as u128 * len as u128 / wanted as u128) as usize;
    (0..wanted)
        .map(|n| border(n) + (random(n as u64) % (border(n + 1) - border(n)) as u64) as usize)
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn random(n: u64) -> u64 {
    let mut z = SEED.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_of_each_stretch() {
        for (len, wanted) in [(10, 3), (90_000, 100), (5, 5), (3, 9), (0, 4), (7, 6)] {
            let places = places(len, wanted);
            assert_eq!(places.len(), wanted.min(len), "{len} {wanted}");
            for (n, place) in places.iter().enumerate().take(wanted.min(len)) {
                let of = wanted.min(len);
                assert!((n * len / of..(n + 1) * len / of).contains(place), "{len} {wanted}: {place}");
            }
        }
    }
}
