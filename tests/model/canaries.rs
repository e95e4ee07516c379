//! The mistakes that a first version makes, each in a configuration in which the model has to notice it.

use basalt_net::quorum::Quorums;

use super::rules::{Mistakes, Rules};
use super::setups;

/// A mistake, and where it is made. Without it the configuration is explored without a violation.
pub(crate) struct Canary {
    pub(crate) name: &'static str,
    pub(crate) right: Rules,
    pub(crate) wrong: Box<dyn Fn(Rules) -> Rules>,
}

fn canary(name: &'static str, right: Rules, mistakes: Mistakes) -> Canary {
    Canary { name, right, wrong: Box::new(move |rules| Rules { mistakes, ..rules }) }
}

fn other_quorums(name: &'static str, right: Rules, change: fn(Quorums) -> Quorums) -> Canary {
    let wrong = move |rules: Rules| Rules { quorums: change(rules.quorums), ..rules };
    Canary { name, right, wrong: Box::new(wrong) }
}

/// The right configuration decides by the lowered quorum too: what it leads to is to be noticed, not that
/// it is another.
fn lower_fast(right: Rules) -> Canary {
    let wrong = |rules: Rules| {
        let (fast, chosen_fast) = (rules.quorums.fast - 1, rules.quorums.chosen_fast - 1);
        let lowered = Quorums { fast, chosen_fast, ..rules.quorums };
        Rules { quorums: lowered, deciding: lowered, ..rules }
    };
    Canary { name: "F lowered by one", right, wrong: Box::new(wrong) }
}

pub(crate) fn all() -> Vec<Canary> {
    let none = Mistakes::default();
    vec![
        other_quorums(
            "possibly chosen at a classic ballot: one more holder asked for",
            setups::two_writers(3, 2),
            |right| Quorums { chosen: right.chosen + 1, ..right },
        ),
        other_quorums(
            "possibly chosen at ballot 0: one more holder asked for",
            setups::two_writers(3, 2),
            |right| Quorums { chosen_fast: right.chosen_fast + 1, ..right },
        ),
        lower_fast(setups::two_writers(3, 2)),
        canary(
            "a blank drive that counts in R and F",
            setups::replacement(2, 1),
            Mistakes { blank_votes: true, ..none },
        ),
        canary(
            "a replacement that votes without a compare",
            setups::replacement(2, 1),
            Mistakes { compare_skipped: true, ..none },
        ),
        canary("no epoch fence", setups::replacement(2, 1), Mistakes { no_fence: true, ..none }),
        canary(
            "a retry that does not learn the outcome",
            setups::two_writers(3, 2),
            Mistakes { retry_without_outcome: true, ..none },
        ),
        canary(
            "recovery without a copy in hand",
            setups::copies(3, 2, 2),
            Mistakes { recovery_without_payload: true, ..none },
        ),
        canary(
            "a drive that is silent counts as one without shards",
            setups::losses(3, 2, 2),
            Mistakes { silence_is_loss: true, ..none },
        ),
        canary(
            "accepted records taken for certified ones",
            setups::writer_and_reader(3, 2),
            Mistakes { accepted_taken_for_certified: true, ..none },
        ),
        canary(
            "reads without the possibly-chosen test",
            setups::writer_and_reader(3, 2),
            Mistakes { uncertified_ignored: true, ..none },
        ),
        canary(
            "a corrupt record answered as absent",
            setups::damage(3, 2),
            Mistakes { damage_is_absence: true, ..none },
        ),
        canary(
            "promises that are not flushed",
            setups::promises(3, 2),
            Mistakes { promises_are_not_flushed: true, ..none },
        ),
    ]
}
