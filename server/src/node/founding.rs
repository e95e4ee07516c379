//! What a node lets the founder do to its drives during a first start: format them, and mark them as
//! formed. Plain state; whoever holds it looks at drives, formats and answers.
//!
//! The founder asks every node what stands at its seats, and sends a *ticket* along, a number that it has
//! never used. Its orders carry the ticket of the question that they follow from. A node obeys only the
//! ticket of the last question that it has answered, and formats once for it, so an order that arrives
//! late, from an attempt that was given up or from a former life of the founder, does nothing: what the
//! node told in its last answer still holds when an order of that ticket arrives.
//!
//! The founder, with the answers of every node: `formation::decide`; if that says to form, an order to
//! format to every node; when all have obeyed, an order to mark to every node; then it asks again,
//! whatever came of it.

use basalt_net::node::NodeIndex;

use super::formation::{FOUNDER, Found};

/// The number that ties an order to a question. Drawn at random for each round of questions.
pub type Ticket = u128;

/// The state of one node, from its first look at its drives until it serves.
#[derive(Debug, Default)]
pub struct Ground {
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// No question of the founder was answered in this life, or its orders were carried out.
    #[default]
    Idle,
    /// An order to format may come.
    Asked(Ticket),
    /// Drives are being formatted or marked; nobody may look at them.
    Busy(Ticket),
    /// All drives of this node are formatted; an order to mark may come.
    Formatted(Ticket),
    /// The node opens its drives.
    Closed,
}

/// Why a node does not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Declined {
    #[error("it is formatting its drives")]
    Busy,
    #[error("the order is not of the last question that this node answered")]
    Stale,
    #[error("a drive of this node is formed, or cannot be used")]
    NotBlank,
    #[error("this node has started")]
    Started,
}

impl Ground {
    /// `asker` wants to know what stands at the seats of this node. The drives may be looked at and told
    /// of, unless that is declined. Only the founder's question opens the ground for its orders.
    pub fn question(&mut self, asker: NodeIndex, ticket: Ticket) -> Result<(), Declined> {
        match self.stage {
            Stage::Busy(_) => Err(Declined::Busy),
            Stage::Closed => Ok(()),
            _ if asker == FOUNDER => {
                self.stage = Stage::Asked(ticket);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An order to format all drives of this node, at which `found` stands right now. If it is accepted,
    /// [`Self::formatted`] has to say how it went.
    pub fn format(&mut self, ticket: Ticket, found: &[Found]) -> Result<(), Declined> {
        self.obey(Stage::Asked(ticket))?;
        let is_free = |found: &Found| match found {
            Found::Blank => true,
            Found::Ours(identity) => identity.forming,
            Found::Unusable(_) | Found::Unreached => false,
        };
        if !found.iter().all(is_free) {
            return Err(Declined::NotBlank);
        }
        self.stage = Stage::Busy(ticket);
        Ok(())
    }

    /// Whether every drive of this node was formatted.
    pub fn formatted(&mut self, ticket: Ticket, all: bool) {
        assert_eq!(self.stage, Stage::Busy(ticket), "nothing comes between");
        self.stage = if all { Stage::Formatted(ticket) } else { Stage::Idle };
    }

    /// An order to mark all drives as formed. If it is accepted, [`Self::marked`] has to follow.
    pub fn mark(&mut self, ticket: Ticket) -> Result<(), Declined> {
        self.obey(Stage::Formatted(ticket))?;
        self.stage = Stage::Busy(ticket);
        Ok(())
    }

    pub fn marked(&mut self, ticket: Ticket) {
        assert_eq!(self.stage, Stage::Busy(ticket), "nothing comes between");
        self.stage = Stage::Idle;
    }

    /// The node goes on to open its drives: no order is obeyed from now on. Declined while one is being
    /// carried out: look again afterwards.
    pub fn close(&mut self) -> Result<(), Declined> {
        match self.stage {
            Stage::Busy(_) => Err(Declined::Busy),
            _ => {
                self.stage = Stage::Closed;
                Ok(())
            }
        }
    }

    fn obey(&self, expected: Stage) -> Result<(), Declined> {
        match self.stage {
            stage if stage == expected => Ok(()),
            Stage::Closed => Err(Declined::Started),
            Stage::Busy(_) => Err(Declined::Busy),
            Stage::Idle | Stage::Asked(_) | Stage::Formatted(_) => Err(Declined::Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLANK: [Found; 2] = [Found::Blank, Found::Blank];

    fn asked(ticket: Ticket) -> Ground {
        let mut ground = Ground::default();
        ground.question(FOUNDER, ticket).expect("idle");
        ground
    }

    #[test]
    fn the_founder_formats_and_marks_once() {
        let mut ground = asked(1);
        assert_eq!(ground.mark(1), Err(Declined::Stale));
        ground.format(1, &BLANK).expect("it was asked");
        assert_eq!(ground.question(FOUNDER, 2), Err(Declined::Busy));
        assert_eq!(ground.close(), Err(Declined::Busy));
        ground.formatted(1, true);
        assert_eq!(ground.format(1, &BLANK), Err(Declined::Stale));
        ground.mark(1).expect("all are formatted");
        ground.marked(1);
        assert_eq!(ground.mark(1), Err(Declined::Stale));
    }

    #[test]
    fn orders_that_come_late_do_nothing() {
        let mut ground = asked(1);
        ground.question(FOUNDER, 2).expect("idle");
        assert_eq!(ground.format(1, &BLANK), Err(Declined::Stale));
        ground.format(2, &BLANK).expect("it was asked last");
        ground.formatted(2, true);
        // What stands there was told once more, as forming: the former attempt must not be finished.
        ground.question(FOUNDER, 3).expect("not busy");
        assert_eq!(ground.mark(2), Err(Declined::Stale));
        assert_eq!(Ground::default().format(2, &BLANK), Err(Declined::Stale));
    }

    #[test]
    fn others_questions_change_nothing() {
        let mut ground = asked(1);
        ground.question(NodeIndex(1), 2).expect("idle");
        assert_eq!(ground.format(2, &BLANK), Err(Declined::Stale));
        ground.format(1, &BLANK).expect("the founder asked");
    }

    #[test]
    fn nothing_that_is_not_blank_is_formatted() {
        let foreign = Found::Unusable("foreign".to_owned());
        assert_eq!(asked(1).format(1, &[Found::Blank, foreign]), Err(Declined::NotBlank));
    }

    #[test]
    fn a_node_that_started_obeys_nobody() {
        let mut ground = asked(1);
        ground.close().expect("not busy");
        assert_eq!(ground.format(1, &BLANK), Err(Declined::Started));
        ground.question(FOUNDER, 2).expect("it tells what stands there");
        assert_eq!(ground.format(2, &BLANK), Err(Declined::Started));
    }
}
