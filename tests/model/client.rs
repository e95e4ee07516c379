//! One client: the product's machines one after the other, as the shell of `server/src/object` runs them.
//!
//! A client whose process ends simply never acts again, and every state allows for that, so the end of a
//! proposer needs no step of its own. What it has sent stays under way.

use std::hash::{Hash, Hasher};

use basalt_engine::record::Record;
use basalt_engine::request::Reply;
use basalt_engine::units::{DriveIndex, Epoch, Slot};
use basalt_net::exchange::{Exchange, Parts, Step};
use basalt_net::lookup::{self, Lookup};
use basalt_net::loss::{Census, Newest, Suspicion};
use basalt_net::proposer::{self, Ended, Proposal};
use basalt_net::quorum::{all_drives, bit, drives_in};
use basalt_net::reader::Reading;
use basalt_net::update::{self, Update};

use super::message::hasher;
use super::rules::{DRIVES_MAX, Judge, Rules};

#[derive(Clone)]
pub(crate) enum Stage {
    /// Has not begun.
    Waiting,
    Looking(Lookup),
    Updating(Update<Judge>),
    /// Written; the drives that have not answered yet are waited for.
    Spreading(Update<Judge>),
    /// Makes a map durable on W drives; the drives that said so, one bit each.
    Installing {
        epoch: Epoch,
        needed: u32,
        done: u16,
    },
    /// A replacement is given the head.
    Teaching {
        slot: Slot,
        record: Record,
    },
    /// A replacement is asked whether it has the head, or a later one.
    Checking {
        slot: Slot,
    },
    /// What is the newest record? All drives are asked.
    Surveying(Reading),
    /// How many of its shards are left?
    Counting {
        newest: Newest,
        census: Census,
    },
    /// Has a record decided whose payload is gone.
    Deciding {
        newest: Newest,
        proposal: Box<Proposal>,
    },
    Ended,
}

/// Where the replacement of a drive stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Replacing {
    No,
    /// The map in which the replacement does not vote is being installed.
    Joining,
    /// The head is looked up, and taught.
    Filling,
    /// The map is decided once more, because a payload seems to be lost.
    Renewing,
    /// A record is decided that says so.
    Declaring,
    /// The head is looked up again, and the replacement has to have it.
    Comparing,
    /// The map in which it votes is being installed.
    Admitting,
}

/// From when on a read has to find what was decided: from before its first question was answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Floor {
    /// Nobody has answered yet, so it may as well begin later.
    Open,
    /// The highest slot that was decided then.
    At(Option<Slot>),
}

#[derive(Clone)]
pub(crate) struct Client {
    /// Its place among the clients.
    pub(crate) at: u8,
    pub(crate) stage: Stage,
    pub(crate) epoch: Epoch,
    /// Machines begun: each has its own classic ballots.
    pub(crate) begun: u8,
    pub(crate) floor: Floor,
    pub(crate) replacing: Replacing,
    /// What seems to be lost.
    pub(crate) suspicion: Option<Suspicion>,
}

/// What a machine came to.
#[derive(Debug)]
pub(crate) enum Came {
    Lookup(lookup::Outcome),
    Update(update::Outcome),
    /// Every drive that was asked has answered, or no more is waited for.
    Spread {
        everywhere: bool,
    },
    Installed(bool),
    Taught(bool),
    Checked(bool),
    /// The newest record, where all drives told theirs.
    Surveyed(Option<Newest>),
    /// Whether too few of its shards are left, where all drives told theirs.
    Counted(Newest, Option<bool>),
    Decided(Newest, proposer::Outcome),
}

impl Came {
    /// What can be seen of it from outside, whichever drives took part.
    pub(crate) fn summary(&self) -> Option<String> {
        let ended = |ended: &Ended| match ended {
            Ended::OtherMap(map) => format!("OtherMap({})", map.epoch.0),
            Ended::NewerMapAt(_) => "NewerMapAt".to_owned(),
            other => format!("{other:?}"),
        };
        Some(match self {
            Self::Lookup(Ok(found)) => format!("{:?}", found.head),
            Self::Lookup(Err(error)) | Self::Update(update::Outcome::Ended(error)) => ended(error),
            // Who has written has come to its end, whatever more it waits for.
            Self::Spread { .. } => return None,
            other => format!("{other:?}"),
        })
    }
}

/// What a machine is told.
pub(crate) enum Input {
    Start,
    Reply(DriveIndex, Reply),
    Deadline,
    Payload(bool),
    Retry,
}

fn drive_with<E: Exchange>(machine: &mut E, input: Input) -> Step<E::Outcome> {
    match input {
        Input::Start => machine.start(),
        Input::Reply(drive, reply) => machine.on_reply(drive, reply),
        Input::Deadline => machine.on_deadline(),
        Input::Payload(within_reach) => machine.on_payload(within_reach),
        Input::Retry => machine.retry(),
    }
}

impl Client {
    pub(crate) fn new(at: usize) -> Self {
        let (stage, floor, replacing) = (Stage::Waiting, Floor::At(None), Replacing::No);
        let suspicion = None;
        Self { at: at as u8, stage, epoch: Epoch(1), begun: 0, floor, replacing, suspicion }
    }

    pub(crate) fn step(&mut self, rules: &Rules, input: Input) -> Step<Came> {
        let (members, epoch) = (all_drives(rules.drives), self.epoch);
        let silence_is_loss = rules.mistakes.silence_is_loss;
        match &mut self.stage {
            Stage::Looking(lookup) => {
                drive_with(lookup, input).or_else(|outcome| Step::Done(Came::Lookup(outcome)))
            }
            Stage::Updating(update) => {
                drive_with(update, input).or_else(|outcome| Step::Done(Came::Update(outcome)))
            }
            Stage::Spreading(update) => {
                match input {
                    Input::Reply(drive, reply) => {
                        update.on_reply(drive, reply);
                    }
                    _ => return Step::Done(Came::Spread { everywhere: false }),
                }
                match update.everywhere() {
                    true => Step::Done(Came::Spread { everywhere: true }),
                    false => Step::Wait,
                }
            }
            Stage::Installing { needed, done, .. } => match input {
                Input::Reply(drive, reply) => {
                    if matches!(reply, Reply::Done) {
                        *done |= bit(drive);
                    }
                    let enough = done.count_ones() >= *needed;
                    if enough { Step::Done(Came::Installed(true)) } else { Step::Wait }
                }
                _ => Step::Done(Came::Installed(false)),
            },
            Stage::Teaching { .. } => {
                let taught = matches!(input, Input::Reply(_, Reply::Accepted { has_shards: true }));
                Step::Done(Came::Taught(taught))
            }
            Stage::Checking { slot } => {
                let Input::Reply(_, Reply::Digest(digest)) = input else {
                    return Step::Done(Came::Checked(false));
                };
                let has = digest.slots.iter().any(|held| {
                    held.certified && held.slot >= *slot && (held.slot > *slot || held.has_shards)
                });
                Step::Done(Came::Checked(has))
            }
            Stage::Surveying(reading) => match input {
                Input::Reply(drive, Reply::Digest(digest)) => {
                    reading.add(drive, digest);
                    match reading.answered() == members {
                        true => Step::Done(Came::Surveyed(Newest::of(reading, members, epoch))),
                        false => Step::Wait,
                    }
                }
                Input::Deadline => {
                    let heard = if silence_is_loss { reading.answered() } else { members };
                    Step::Done(Came::Surveyed(Newest::of(reading, heard, epoch)))
                }
                _ => Step::Done(Came::Surveyed(None)),
            },
            Stage::Counting { newest, census } => {
                let heard = match input {
                    Input::Reply(drive, Reply::Holds(holds)) => {
                        census.take(drive, &holds);
                        if census.answered() != members {
                            return Step::Wait;
                        }
                        members
                    }
                    Input::Deadline if silence_is_loss => census.answered(),
                    _ => members,
                };
                Step::Done(Came::Counted(newest.clone(), census.too_few(heard)))
            }
            Stage::Deciding { newest, proposal } => drive_with(&mut **proposal, input)
                .or_else(|outcome| Step::Done(Came::Decided(newest.clone(), outcome))),
            Stage::Waiting | Stage::Ended => unreachable!("it does nothing"),
        }
    }

    pub(crate) fn doing(&self) -> &'static str {
        match self.stage {
            Stage::Waiting => "has not begun",
            Stage::Looking(_) => "looks",
            Stage::Updating(_) => "updates",
            Stage::Spreading(_) => "has written, and spreads it",
            Stage::Installing { .. } => "installs a map",
            Stage::Teaching { .. } => "teaches the replacement",
            Stage::Checking { .. } => "checks the replacement",
            Stage::Surveying(_) => "surveys the drives",
            Stage::Counting { .. } => "counts shards",
            Stage::Deciding { .. } => "decides what lost its payload",
            Stage::Ended => "has ended",
        }
    }
}

/// A client with the hashes of its state: of what concerns no drive, and of what concerns each.
pub(crate) struct Kept {
    pub(crate) client: Client,
    pub(crate) common: u64,
    pub(crate) parts: [u64; DRIVES_MAX],
}

impl Kept {
    pub(crate) fn new(client: Client, drives: usize) -> Self {
        let hash = |drive: Option<DriveIndex>| {
            let mut into = hasher();
            client.hash_part(drive, &mut into);
            into.finish()
        };
        let mut parts = [0; DRIVES_MAX];
        for drive in drives_in(all_drives(drives)) {
            parts[usize::from(drive.0)] = hash(Some(drive));
        }
        let common = hash(None);
        Self { client, common, parts }
    }
}

impl Parts for Client {
    fn hash_part(&self, drive: Option<DriveIndex>, into: &mut impl Hasher) {
        let Self { at, stage, epoch, begun, floor, replacing, suspicion } = self;
        std::mem::discriminant(stage).hash(into);
        match stage {
            Stage::Waiting | Stage::Ended => {}
            Stage::Looking(lookup) => lookup.hash_part(drive, into),
            Stage::Updating(update) => update.hash_part(drive, into),
            Stage::Spreading(update) => update.hash_part(drive, into),
            Stage::Installing { epoch, needed, done } => match drive {
                Some(drive) => (done & bit(drive) != 0).hash(into),
                None => (epoch, needed).hash(into),
            },
            Stage::Teaching { slot, record } => (slot, record).hash(into),
            Stage::Checking { slot } => slot.hash(into),
            Stage::Surveying(reading) => reading.hash_part(drive, into),
            Stage::Counting { newest, census } => {
                newest.hash(into);
                census.hash_part(drive, into);
            }
            Stage::Deciding { newest, proposal } => {
                newest.hash(into);
                proposal.hash_part(drive, into);
            }
        }
        // What a client that has ended knew makes no difference any more.
        if drive.is_none() && !matches!(stage, Stage::Ended) {
            (at, epoch, begun, floor, replacing, suspicion).hash(into);
        }
    }
}
