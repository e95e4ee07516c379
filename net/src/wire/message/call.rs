//! Questions to a node itself: what its drives are, and the steps of a first start.

use basalt_engine::request as engine;
use basalt_engine::units::{DeploymentId, DriveId, DriveIndex, SetIndex};
use bytes::Bytes;
use rkyv::{Archive, Serialize};

use super::parts::{Open, SetMap};
use super::{Body, access, archive};
use crate::node::NodeIndex;
use crate::wire::Malformed;

/// Answered with [`CallAnswer`]. A ticket ties orders to the question that they follow from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// What stands at the node's seats?
    Identify { ticket: u128 },
    /// Format your drives as founding members, forming. Answered when all are.
    Format { ticket: u128, deployment: DeploymentId, maps: Vec<engine::SetMap> },
    /// Every drive of the deployment is formatted: mark yours as formed.
    Mark { ticket: u128, deployment: DeploymentId },
    /// How are you? For operators; nothing is decided by it.
    Describe,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallAnswer {
    Seats(Vec<SeatFound>),
    Done,
    /// Why not, for the operator.
    Refused(String),
    Description(Description),
}

/// What a node that serves says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    pub version: String,
    pub up_seconds: u64,
    /// The other nodes that it is connected to.
    pub connected: Vec<NodeIndex>,
}

/// What stands at one of the node's seats.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeatFound {
    pub set: SetIndex,
    pub position: DriveIndex,
    pub standing: Standing,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    Blank,
    /// A formatted drive and who it says it is.
    Drive {
        drive: DriveId,
        deployment: DeploymentId,
        set: SetIndex,
        position: DriveIndex,
        forming: bool,
        map: engine::SetMap,
    },
    Unusable(String),
}

#[derive(Archive, Serialize)]
enum WireCall {
    Identify { ticket: u128 },
    Format { ticket: u128, deployment: u128, maps: Vec<SetMap> },
    Mark { ticket: u128, deployment: u128 },
    Describe,
}

#[derive(Archive, Serialize)]
struct Numbered {
    number: u32,
    call: WireCall,
}

#[derive(Archive, Serialize)]
enum WireAnswer {
    Seats(Vec<WireSeat>),
    Done,
    Refused(String),
    Description { version: String, up_seconds: u64, connected: Vec<u16> },
}

#[derive(Archive, Serialize)]
struct NumberedAnswer {
    number: u32,
    answer: WireAnswer,
}

#[derive(Archive, Serialize)]
struct WireSeat {
    set: u16,
    position: u8,
    standing: WireStanding,
}

#[derive(Archive, Serialize)]
enum WireStanding {
    Blank,
    Drive { drive: u128, deployment: u128, set: u16, position: u8, forming: bool, map: SetMap },
    Unusable(String),
}

pub(super) fn pack(number: u32, call: &Call) -> Body {
    let call = match call {
        Call::Identify { ticket } => WireCall::Identify { ticket: *ticket },
        Call::Format { ticket, deployment, maps } => {
            let maps = maps.iter().map(SetMap::from).collect();
            WireCall::Format { ticket: *ticket, deployment: deployment.0, maps }
        }
        Call::Mark { ticket, deployment } => {
            WireCall::Mark { ticket: *ticket, deployment: deployment.0 }
        }
        Call::Describe => WireCall::Describe,
    };
    archive(&Numbered { number, call })
}

pub(super) fn open(body: &Bytes) -> Result<(u32, Call), Malformed> {
    let numbered = access::<ArchivedNumbered>(body)?;
    let call = match &numbered.call {
        ArchivedWireCall::Identify { ticket } => Call::Identify { ticket: ticket.to_native() },
        ArchivedWireCall::Format { ticket, deployment, maps } => Call::Format {
            ticket: ticket.to_native(),
            deployment: DeploymentId(deployment.to_native()),
            maps: maps.open(body)?,
        },
        ArchivedWireCall::Mark { ticket, deployment } => Call::Mark {
            ticket: ticket.to_native(),
            deployment: DeploymentId(deployment.to_native()),
        },
        ArchivedWireCall::Describe => Call::Describe,
    };
    Ok((numbered.number.to_native(), call))
}

pub(super) fn pack_answer(number: u32, answer: &CallAnswer) -> Body {
    let answer = match answer {
        CallAnswer::Seats(seats) => WireAnswer::Seats(seats.iter().map(WireSeat::from).collect()),
        CallAnswer::Done => WireAnswer::Done,
        CallAnswer::Refused(reason) => WireAnswer::Refused(reason.clone()),
        CallAnswer::Description(Description { version, up_seconds, connected }) => {
            WireAnswer::Description {
                version: version.clone(),
                up_seconds: *up_seconds,
                connected: connected.iter().map(|node| node.0).collect(),
            }
        }
    };
    archive(&NumberedAnswer { number, answer })
}

pub(super) fn open_answer(body: &Bytes) -> Result<(u32, CallAnswer), Malformed> {
    let numbered = access::<ArchivedNumberedAnswer>(body)?;
    let answer = match &numbered.answer {
        ArchivedWireAnswer::Seats(seats) => CallAnswer::Seats(seats.open(body)?),
        ArchivedWireAnswer::Done => CallAnswer::Done,
        ArchivedWireAnswer::Refused(reason) => CallAnswer::Refused(reason.as_str().to_owned()),
        ArchivedWireAnswer::Description { version, up_seconds, connected } => {
            CallAnswer::Description(Description {
                version: version.as_str().to_owned(),
                up_seconds: up_seconds.to_native(),
                connected: connected.iter().map(|node| NodeIndex(node.to_native())).collect(),
            })
        }
    };
    Ok((numbered.number.to_native(), answer))
}

impl From<&SeatFound> for WireSeat {
    fn from(seat: &SeatFound) -> Self {
        let standing = match &seat.standing {
            Standing::Blank => WireStanding::Blank,
            Standing::Drive { drive, deployment, set, position, forming, map } => {
                WireStanding::Drive {
                    drive: drive.0,
                    deployment: deployment.0,
                    set: set.0,
                    position: position.0,
                    forming: *forming,
                    map: SetMap::from(map),
                }
            }
            Standing::Unusable(reason) => WireStanding::Unusable(reason.clone()),
        };
        Self { set: seat.set.0, position: seat.position.0, standing }
    }
}

impl Open for ArchivedWireSeat {
    type Meaning = SeatFound;
    fn open(&self, body: &Bytes) -> Result<SeatFound, Malformed> {
        let standing = match &self.standing {
            ArchivedWireStanding::Blank => Standing::Blank,
            ArchivedWireStanding::Drive { drive, deployment, set, position, forming, map } => {
                Standing::Drive {
                    drive: DriveId(drive.to_native()),
                    deployment: DeploymentId(deployment.to_native()),
                    set: SetIndex(set.to_native()),
                    position: DriveIndex(*position),
                    forming: *forming,
                    map: map.open(body)?,
                }
            }
            ArchivedWireStanding::Unusable(reason) => {
                Standing::Unusable(reason.as_str().to_owned())
            }
        };
        let (set, position) = (SetIndex(self.set.to_native()), DriveIndex(self.position));
        Ok(SeatFound { set, position, standing })
    }
}
