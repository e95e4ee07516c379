//! What clients did to one register and what they saw, and whether one order explains it all.
//!
//! A register is a key (its value an ETag, or absent) or a bucket (there, or not). Operations whose
//! outcome is unknown may take effect at any time after they began, once, or never. Reads that saw a
//! missing bucket saw every key in it absent.
//!
//! The check is exact: it follows every order that real time allows, keeping only what can still
//! matter (the register's value, and which open operations took effect).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use basalt_engine::seam::Moment;

/// A value of a register: an interned ETag. `None` is absent.
pub type Value = Option<u16>;

/// What must hold of the register for an operation to take effect as reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    Anything,
    Is(Value),
    Present,
    /// Present, with another value.
    Differs(u16),
}

impl Need {
    fn holds(self, value: Value) -> bool {
        match self {
            Self::Anything => true,
            Self::Is(expected) => value == expected,
            Self::Present => value.is_some(),
            Self::Differs(other) => value.is_some_and(|value| value != other),
        }
    }
}

#[derive(Clone, Debug)]
struct Operation {
    start: Moment,
    /// `None`: the outcome is unknown.
    end: Option<Moment>,
    need: Need,
    write: Option<Value>,
    client: String,
}

/// Everything that happened to one register.
#[derive(Clone, Default, Debug)]
pub struct Register {
    operations: Vec<Operation>,
}

/// More than this many ways to explain a history, or operations open at once, are not followed.
const CONFIGURATIONS_MAX: usize = 200_000;
const OPEN_MAX: usize = 120;

/// How a check ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    Explained,
    /// Too many operations were open to follow every order.
    GaveUp,
    /// No order explains what this operation reported.
    Violation(String),
}

impl Register {
    pub fn read(&mut self, start: Moment, end: Moment, need: Need, client: String) {
        self.operations.push(Operation { start, end: Some(end), need, write: None, client });
    }

    pub fn write(
        &mut self,
        start: Moment,
        end: Option<Moment>,
        need: Need,
        value: Value,
        client: String,
    ) {
        self.operations.push(Operation { start, end, need, write: Some(value), client });
    }

    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub fn check(&self) -> Checked {
        // Ends before starts at the same moment would forbid what touched; starts come first.
        let mut events: Vec<(Moment, bool, usize)> = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            events.push((operation.start, false, index));
            events.extend(operation.end.map(|end| (end, true, index)));
        }
        events.sort_unstable();
        let mut search = Search::default();
        search.ways.insert((None, 0));
        for (_, is_end, index) in events {
            if !is_end {
                if !search.begin(index) {
                    return Checked::GaveUp;
                }
                continue;
            }
            match search.end(&self.operations, index) {
                Some(true) => {}
                Some(false) => return Checked::Violation(self.tell(index)),
                None => return Checked::GaveUp,
            }
        }
        Checked::Explained
    }

    fn tell(&self, failed: usize) -> String {
        let mut order: Vec<usize> = (0..self.operations.len()).collect();
        order.sort_by_key(|index| self.operations[*index].start);
        let lines = order.into_iter().map(|index| {
            let mark = if index == failed { "=>" } else { "  " };
            format!("{mark} {}", self.operations[index])
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.map_or("?".to_owned(), |end| (end.0 / 1000).to_string());
        write!(f, "{:>12} .. {end:>12} us  needs {:?}", self.start.0 / 1000, self.need)?;
        if let Some(value) = self.write {
            write!(f, ", writes {value:?}")?;
        }
        write!(f, "  [{}]", self.client)
    }
}

/// All ways in which the history so far can have come about.
#[derive(Default)]
struct Search {
    /// The register's value, and one bit for each open operation that took effect.
    ways: BTreeSet<(Value, u128)>,
    open: BTreeMap<usize, usize>,
}

impl Search {
    fn begin(&mut self, index: usize) -> bool {
        let free = (0..OPEN_MAX).find(|slot| !self.open.contains_key(slot));
        free.is_some_and(|slot| self.open.insert(slot, index).is_none())
    }

    /// The operation ended: every way must have it. `None` if there are too many ways.
    fn end(&mut self, operations: &[Operation], index: usize) -> Option<bool> {
        let (&slot, _) = self.open.iter().find(|(_, open)| **open == index).expect("it began");
        let mut seen = std::mem::take(&mut self.ways);
        let mut frontier: Vec<(Value, u128)> = seen.iter().copied().collect();
        while let Some((value, done)) = frontier.pop() {
            if done & 1 << slot != 0 {
                self.ways.insert((value, done & !(1 << slot)));
                continue;
            }
            for (&other, &open) in &self.open {
                if done & 1 << other != 0 || !operations[open].need.holds(value) {
                    continue;
                }
                let next = (operations[open].write.unwrap_or(value), done | 1 << other);
                if seen.insert(next) {
                    frontier.push(next);
                }
            }
            if seen.len() > CONFIGURATIONS_MAX {
                return None;
            }
        }
        self.open.remove(&slot);
        Some(!self.ways.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(moment: u64) -> Moment {
        Moment(moment)
    }
    fn name() -> String {
        "client".to_owned()
    }

    #[test]
    fn a_lost_write_is_noticed() {
        let mut register = Register::default();
        register.write(at(1), Some(at(2)), Need::Anything, Some(1), name());
        register.read(at(3), at(4), Need::Is(None), name());
        assert!(matches!(register.check(), Checked::Violation(_)));
    }

    #[test]
    fn an_unknown_write_may_happen_late_but_only_once() {
        let mut register = Register::default();
        register.write(at(1), None, Need::Anything, Some(1), name());
        register.read(at(3), at(4), Need::Is(None), name());
        register.read(at(5), at(6), Need::Is(Some(1)), name());
        assert_eq!(register.check(), Checked::Explained);
        register.write(at(7), Some(at(8)), Need::Anything, Some(2), name());
        register.read(at(9), at(10), Need::Is(Some(1)), name());
        assert!(matches!(register.check(), Checked::Violation(_)));
    }

    #[test]
    fn two_conditional_writes_on_one_base_are_noticed() {
        let mut register = Register::default();
        register.write(at(1), Some(at(9)), Need::Is(None), Some(1), name());
        register.write(at(2), Some(at(8)), Need::Is(None), Some(2), name());
        assert!(matches!(register.check(), Checked::Violation(_)));
    }
}
