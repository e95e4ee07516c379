//! Says in the log when a set loses drives, how many it is short of what, and when it is whole again:
//! one line for each change, once it has lasted for two looks.

use std::rc::Rc;

use super::overview::SetState;
use super::places::Places;

/// How many drives a set is short.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Lack {
    /// Of all of its drives holding all that they should.
    pub(super) to_be_whole: usize,
    /// Of those without which nothing new is taken.
    pub(super) to_write: usize,
    /// Of those without which objects cannot be read.
    pub(super) to_read: usize,
    /// Drives that are being filled; they are among those that are missing.
    pub(super) healing: usize,
}

pub(super) struct Redundancy {
    places: Rc<Places>,
    /// By set: what was told last, and what was seen last.
    known: Vec<(Lack, Lack)>,
}

impl Redundancy {
    pub(super) fn new(places: Rc<Places>) -> Self {
        let known = vec![(Lack::default(), Lack::default()); places.seats.len()];
        Self { places, known }
    }

    /// To be called after each look.
    pub(super) fn see(&mut self, sets: &[SetState]) {
        for set in sets {
            let (told, seen) = &mut self.known[usize::from(set.set.0)];
            let lack = set.lack();
            if let Some(lack) = news(told, seen, lack) {
                tell(set, lack, &self.missing(set));
            }
        }
    }

    /// The drives that do not answer, as operators name them.
    fn missing(&self, set: &SetState) -> String {
        let seats = self.places.seats[usize::from(set.set.0)].iter().enumerate();
        let answers = |position: usize| {
            set.drives.iter().any(|(answered, _)| usize::from(answered.0) == position)
        };
        let missing = seats.filter(|(position, _)| !answers(*position));
        let names: Vec<&str> = missing.map(|(_, seat)| seat.name.as_str()).collect();
        names.join(" ")
    }
}

/// What is to be told now.
fn news(told: &mut Lack, seen: &mut Lack, lack: Lack) -> Option<Lack> {
    let lasts = std::mem::replace(seen, lack) == lack;
    (lasts && std::mem::replace(told, lack) != lack).then_some(lack)
}

fn tell(state: &SetState, lack: Lack, missing: &str) {
    let (set, drives, answering) = (state.set.0, state.quorums.drives, state.drives.len());
    let Lack { to_be_whole: short, to_write, to_read, healing } = lack;
    match lack {
        Lack { to_be_whole: 0, .. } => {
            tracing::info!(set, drives, "set is whole again: all of its drives answer");
        }
        Lack { to_read: 1.., .. } => tracing::error!(
            set,
            drives,
            answering,
            healing,
            short,
            to_read,
            to_write,
            missing,
            "set is {to_read} of its drives short of reading its objects, {to_write} of writing"
        ),
        Lack { to_write: 1.., .. } => tracing::error!(
            set,
            drives,
            answering,
            healing,
            short,
            to_write,
            missing,
            "set is {to_write} of its drives short of writing; it is read"
        ),
        Lack { healing: 1.., .. } if healing == short => tracing::warn!(
            set,
            drives,
            answering,
            healing,
            short,
            "set is {short} of its drives short of full redundancy: they are being filled"
        ),
        _ => tracing::warn!(
            set,
            drives,
            answering,
            healing,
            short,
            missing,
            "set is {short} of its drives short of full redundancy; it is read and written"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::overview::testing::set;
    use super::super::places::testing::places;
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_lasts() {
        let (mut told, mut seen) = (Lack::default(), Lack::default());
        let short = |to_be_whole| Lack { to_be_whole, ..Lack::default() };
        let looks = [0, 1, 0, 2, 2, 2, 3, 2, 2, 1, 1, 0, 0, 0];
        let news = looks.map(|missing| news(&mut told, &mut seen, short(missing)));
        let told: Vec<(usize, usize)> = news
            .into_iter()
            .enumerate()
            .filter_map(|(look, lack)| Some((look, lack?.to_be_whole)))
            .collect();
        assert_eq!(told, [(4, 2), (10, 1), (12, 0)]);
    }

    #[test]
    fn those_that_are_missing_are_named() {
        let redundancy = Redundancy::new(Rc::new(places(2)));
        let missing = redundancy.missing(&set(1, 4, &[0, 2], &[]));
        assert_eq!(missing, "http://n1:9000/s1/d1 http://n1:9000/s1/d3");
    }
}
