//! How many drives a set of a pool has. Decided when a pool is formatted, then read from its
//! drives and never derived again.

use basalt_engine::units::SET_DRIVES_MAX;

/// Fewest drives of a set in the exception for odd node counts.
const ODD_SET_DRIVES_MIN: usize = 8;

/// What the size depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub drives: usize,
    /// Values of the leftmost range of the pool's argument, if it has one. This is what sets have
    /// to be symmetric to: on several nodes it is the range over the nodes.
    pub leftmost: Option<usize>,
    pub nodes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsizable {
    #[error("{drives} drives cannot be divided into sets of equal size, from 2 to 16 drives each")]
    Indivisible { drives: usize },
    #[error("no set size divides {drives} drives and lies evenly over a range of {leftmost}")]
    Asymmetric { drives: usize, leftmost: usize },
    #[error("sets of {wanted} drives are not possible with {drives} drives; {} would be", join(.possible))]
    Impossible { wanted: usize, drives: usize, possible: Vec<usize> },
}

/// The drives of each set.
pub fn set_size(shape: Shape, wanted: Option<usize>) -> Result<usize, Unsizable> {
    let Shape { drives, leftmost, nodes } = shape;
    let possible: Vec<usize> =
        (2..=SET_DRIVES_MAX).filter(|size| drives.is_multiple_of(*size)).collect();
    if possible.is_empty() || drives == 0 {
        return Err(Unsizable::Indivisible { drives });
    }
    if let Some(wanted) = wanted {
        return match possible.contains(&wanted) {
            true => Ok(wanted),
            false => Err(Unsizable::Impossible { wanted, drives, possible }),
        };
    }
    if let Some(size) = odd_number_of_sets(&possible, drives, nodes) {
        return Ok(size);
    }
    let symmetric = |size: &usize| leftmost.is_none_or(|leftmost| is_symmetric(*size, leftmost));
    let largest = possible.into_iter().filter(symmetric).max();
    largest.ok_or(Unsizable::Asymmetric { drives, leftmost: leftmost.unwrap_or(drives) })
}

/// With an odd number of nodes, three or more: the largest size of at least eight that gives an
/// odd number of sets, where there is one.
fn odd_number_of_sets(possible: &[usize], drives: usize, nodes: usize) -> Option<usize> {
    if nodes < 3 || nodes.is_multiple_of(2) {
        return None;
    }
    let fits = |size: &usize| *size >= ODD_SET_DRIVES_MIN && !(drives / size).is_multiple_of(2);
    possible.iter().copied().filter(fits).max()
}

/// Whether a set has the same number of drives of every value of the range that it touches.
fn is_symmetric(size: usize, leftmost: usize) -> bool {
    if leftmost > size { leftmost.is_multiple_of(size) } else { size.is_multiple_of(leftmost) }
}

/// The next smaller and the next larger number of drives that sets can be made of.
pub fn divisible_near(drives: usize) -> (Option<usize>, usize) {
    let divisible = |n: &usize| (2..=SET_DRIVES_MAX).any(|size| n.is_multiple_of(size));
    let below = (2..drives).rev().find(divisible);
    let above = (drives + 1..).find(divisible).expect("every even number is divisible");
    (below, above)
}

pub fn join(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(drives: usize, leftmost: usize, nodes: usize) -> Result<usize, Unsizable> {
        set_size(Shape { drives, leftmost: Some(leftmost), nodes }, None)
    }

    #[test]
    fn one_node_and_even_nodes_take_the_largest_symmetric_size() {
        // Drives, values of the leftmost range, nodes, expected size.
        let table = [
            (3, 3, 1, 3),
            (4, 4, 1, 4),
            (27, 27, 1, 9),
            (24, 24, 1, 12),
            (64, 64, 1, 16),
            (832, 16, 1, 16),
            (88, 11, 1, 11),
            (540, 3, 1, 15),
            (360, 2, 2, 12),
            (1440, 2, 8, 16),
            (128, 2, 2, 16),
            (64, 4, 64, 16),
            (32, 16, 16, 16),
            (32, 32, 1, 16),
            (256, 2, 2, 16),
            (100, 10, 1, 10),
            (16, 4, 4, 16),
            (24, 6, 6, 12),
            (48, 6, 6, 12),
            (96, 8, 8, 16),
            (100, 10, 10, 10),
            (144, 12, 12, 12),
            (144, 18, 18, 9),
            (80, 20, 20, 10),
            (88, 22, 22, 11),
            (1024, 32, 32, 16),
            (272, 34, 34, 2),
        ];
        for (drives, leftmost, nodes, expected) in table {
            assert_eq!(size(drives, leftmost, nodes), Ok(expected), "{drives} over {leftmost}");
        }
    }

    #[test]
    fn odd_nodes_take_an_odd_number_of_sets_of_eight_or_more() {
        let table = [
            (5, 8, 8),    // 5 sets, where symmetry alone would make 4 of 10.
            (5, 4, 10),   // No odd number of sets of 8 or more: 2 sets of 10 by symmetry.
            (3, 4, 12),   // 1 set.
            (7, 4, 14),   // 2 sets by symmetry.
            (11, 8, 8),   // 11 sets.
            (3, 180, 12), // 45 sets.
            (9, 5, 15),   // 3 sets.
            (17, 16, 16),
            (19, 8, 8),
            (23, 16, 16),
        ];
        for (nodes, each, expected) in table {
            assert_eq!(size(nodes * each, nodes, nodes), Ok(expected), "{nodes} x {each}");
        }
    }

    #[test]
    fn without_a_range_the_largest_divisor_wins() {
        for (drives, expected) in [(2, 2), (4, 4), (6, 6), (18, 9), (34, 2), (272, 16)] {
            let shape = Shape { drives, leftmost: None, nodes: 1 };
            assert_eq!(set_size(shape, None), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_divided_or_is_not_symmetric_is_refused() {
        for drives in [0, 1, 17, 19, 289] {
            assert_eq!(size(drives, drives, 1), Err(Unsizable::Indivisible { drives }));
        }
        let asymmetric = |drives, leftmost| Err(Unsizable::Asymmetric { drives, leftmost });
        assert_eq!(size(884, 17, 1), asymmetric(884, 17));
        assert_eq!(size(152, 19, 1), asymmetric(152, 19));
        assert_eq!(size(34, 17, 17), asymmetric(34, 17));
    }

    #[test]
    fn a_wanted_size_needs_no_symmetry_but_must_divide() {
        let wanted = |drives, leftmost, wanted| {
            set_size(Shape { drives, leftmost: Some(leftmost), nodes: leftmost }, Some(wanted))
        };
        assert_eq!(wanted(360, 2, 15), Ok(15));
        assert_eq!(wanted(64, 64, 8), Ok(8));
        assert_eq!(wanted(144, 12, 12), Ok(12));
        assert_eq!(wanted(168, 6, 12), Ok(12));
        assert_eq!(wanted(121, 11, 11), Ok(11));
        assert_eq!(
            wanted(168, 6, 10),
            Err(Unsizable::Impossible {
                wanted: 10,
                drives: 168,
                possible: vec![2, 3, 4, 6, 7, 8, 12, 14]
            })
        );
    }

    #[test]
    fn numbers_of_drives_that_would_do() {
        assert_eq!(divisible_near(17), (Some(16), 18));
        assert_eq!(divisible_near(1), (None, 2));
    }
}
