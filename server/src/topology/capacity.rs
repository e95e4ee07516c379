//! What drives hold before and after parity.

use std::iter::Sum;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Capacity {
    pub raw_bytes: u64,
    /// Bytes of objects that fit at the parity asked about.
    pub usable_bytes: u64,
}

/// The capacity of a set of `drives`, of which those that are here have `here_bytes` each. Shards
/// lie evenly over the drives, so the smallest bounds what is usable.
pub fn of_set(here_bytes: &[u64], drives: usize, parity: u8) -> Capacity {
    let data = drives.checked_sub(usize::from(parity)).expect("parity within the set");
    let smallest = here_bytes.iter().copied().min().unwrap_or(0);
    Capacity { raw_bytes: here_bytes.iter().sum(), usable_bytes: smallest * data as u64 }
}

impl Sum for Capacity {
    fn sum<I: Iterator<Item = Self>>(sets: I) -> Self {
        sets.fold(Self::default(), |sum, set| Self {
            raw_bytes: sum.raw_bytes + set.raw_bytes,
            usable_bytes: sum.usable_bytes + set.usable_bytes,
        })
    }
}

/// Bytes as people read them: `11.9 TiB`.
pub fn text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 || unit == 0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;

    #[test]
    fn sixteen_drives_of_a_tebibyte() {
        for (parity, usable) in [(4, 12), (6, 10), (8, 8)] {
            let capacity = of_set(&[TIB; 16], 16, parity);
            assert_eq!(capacity.raw_bytes, 16 * TIB);
            assert_eq!(capacity.usable_bytes, usable * TIB, "EC:{parity}");
        }
    }

    #[test]
    fn the_smallest_drive_bounds_its_set_and_sets_add_up() {
        let small = of_set(&[TIB, 2 * TIB, 2 * TIB, 2 * TIB], 4, 2);
        assert_eq!(small, Capacity { raw_bytes: 7 * TIB, usable_bytes: 2 * TIB });
        let both: Capacity = [small, of_set(&[TIB], 1, 0)].into_iter().sum();
        assert_eq!(both, Capacity { raw_bytes: 8 * TIB, usable_bytes: 3 * TIB });
        let one_is_down = of_set(&[TIB; 3], 4, 2);
        assert_eq!(one_is_down, Capacity { raw_bytes: 3 * TIB, usable_bytes: 2 * TIB });
    }

    #[test]
    fn as_people_read_it() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (12 * TIB, "12 TiB"), (TIB * 3 / 2, "1.5 TiB")];
        for (bytes, expected) in cases {
            assert_eq!(text(bytes), expected);
        }
    }
}
