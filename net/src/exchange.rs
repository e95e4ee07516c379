//! How a pure state machine of the slot protocol talks to whoever drives it: the production shell, the
//! simulation, or the model.
//!
//! The machine says what to send, is fed the replies to *that* sending one by one, and is told when
//! they are late. Replies to an earlier sending are never fed in: they are dropped with it.

use basalt_engine::record::Record;
use basalt_engine::request::{Reply, Request};
use basalt_engine::units::DriveIndex;

/// What the driver of a machine does next.
#[derive(Debug)]
pub enum Step<T> {
    /// Send these; what an earlier sending still yields no longer matters. Then wait.
    Send(Vec<(DriveIndex, Request)>),
    /// As `Send`, to some drives of several that would do: what does not come soon is late, and others
    /// are asked as well.
    SendSome(Vec<(DriveIndex, Request)>),
    /// Send these too; what an earlier sending still yields matters as before. Then wait.
    SendMore(Vec<(DriveIndex, Request)>),
    /// Somebody else's staged record may have been chosen: find out whether k of the shards of each of
    /// its payloads are within reach, and say so by [`Exchange::on_payload`].
    CheckPayload(Record),
    /// A higher ballot was met: pause for a random while, then call [`Exchange::retry`].
    Pause,
    /// Wait for the next reply, or for the deadline.
    Wait,
    /// As `Wait`, but enough is known to go on: what does not come soon is late.
    Linger,
    Done(T),
}

pub trait Exchange {
    type Outcome;

    fn start(&mut self) -> Step<Self::Outcome>;
    fn on_reply(&mut self, drive: DriveIndex, reply: Reply) -> Step<Self::Outcome>;
    /// No reply came for a while, or no more will.
    fn on_deadline(&mut self) -> Step<Self::Outcome>;
    fn on_payload(&mut self, within_reach: bool) -> Step<Self::Outcome>;
    fn retry(&mut self) -> Step<Self::Outcome>;
}

impl<T> Step<T> {
    /// The same step of a machine that contains this one; `done` goes on where this one ended.
    pub fn or_else<U>(self, done: impl FnOnce(T) -> Step<U>) -> Step<U> {
        match self {
            Self::Send(requests) => Step::Send(requests),
            Self::SendSome(requests) => Step::SendSome(requests),
            Self::SendMore(requests) => Step::SendMore(requests),
            Self::CheckPayload(record) => Step::CheckPayload(record),
            Self::Pause => Step::Pause,
            Self::Wait => Step::Wait,
            Self::Linger => Step::Linger,
            Self::Done(outcome) => done(outcome),
        }
    }
}
