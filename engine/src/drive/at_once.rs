//! The short way of the requests that make up almost all of what a drive is asked: what they do is done in
//! memory within the call, and what is left is to wait until it is durable, or nothing. No task, no
//! future, and no copy of the request is made for them.
//!
//! A request that has to wait before it may begin (for room in the journal), that reads the storage, or
//! that a drive in its present state refuses, goes the long way: nothing was done then.

use std::cell::Cell;
use std::rc::Rc;

use super::{Drive, State};
use crate::error::Result;
use crate::journal::Reservation;
use crate::record::Record;
use crate::request::{Reply, Request};
use crate::seam::{Runtime, Storage};

/// How far a request came within the call.
#[derive(Debug)]
pub enum Begun {
    Answered(Reply),
    /// Done, but nothing may be said before it is durable: [`Drive::finish`].
    Until(Pending),
    /// Nothing was done.
    Later(Request),
}

/// A reply that waits for a mutation to be durable.
#[derive(Debug)]
pub struct Pending {
    pub(super) wait_for: u64,
    pub(super) reply: Reply,
    /// A record that was accepted before its shards were here: they may come while the reply waits.
    pub(super) lacking: Option<Record>,
}

impl Pending {
    fn new(reply: Reply, wait_for: u64) -> Self {
        Self { wait_for, reply, lacking: None }
    }
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    /// Does as much of a request as needs no waiting.
    pub fn begin(self: &Rc<Self>, request: Request) -> Begun {
        if self.check_open().is_err() || self.damage.is_some() {
            return Begun::Later(request);
        }
        let pending = match request {
            Request::Digest { key, payload: false } => {
                let (digest, wait_for) = self.state.borrow().digest(&key);
                Pending::new(Reply::Digest(digest), wait_for)
            }
            Request::Accept { .. } | Request::StageSmall { .. } | Request::Certify { .. } => {
                match self.reserve_at_once(&request) {
                    Some(room) => self.do_in(room, request),
                    None => return Begun::Later(request),
                }
            }
            request => return Begun::Later(request),
        };
        match pending.wait_for <= self.journal.durable_reached() {
            true => Begun::Answered(pending.reply),
            false => Begun::Until(pending),
        }
    }

    /// Waits until what was done is durable, and answers.
    pub async fn finish(self: &Rc<Self>, pending: Pending) -> Reply {
        match self.wait(pending).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed(error),
        }
    }

    async fn wait(self: &Rc<Self>, pending: Pending) -> Result<Reply> {
        let Pending { wait_for, reply, lacking } = pending;
        self.durable(wait_for).await?;
        let Some(record) = lacking else { return Ok(reply) };
        let wait_for = Cell::new(0);
        let has_shards = self.state.borrow().index.has_shards(&record, &wait_for);
        self.durable(wait_for.get()).await?;
        Ok(Reply::Accepted { has_shards })
    }

    /// Does what `request` asks, in memory and at once. There is `room` for what it appends.
    fn do_in(self: &Rc<Self>, room: Reservation<R, S>, request: Request) -> Pending {
        match request {
            Request::Accept { epoch, key, slot, ballot, base, record, copy, fresh } => {
                self.accept(room, epoch, key, slot, ballot, base, record, copy, fresh)
            }
            Request::StageSmall { payload, key, operation, shard } => {
                match self.stage_small(room, payload, key, operation, shard) {
                    Ok(wait_for) => Pending::new(Reply::Done, wait_for),
                    Err(error) => Pending::new(Reply::Failed(error), 0),
                }
            }
            Request::Certify { key, certificate, settled, listed } => {
                self.certify(room, key, certificate, settled, &listed);
                // True whether or not this drive remembers it.
                Pending::new(Reply::Done, 0)
            }
            other => unreachable!("{other:?} takes no room"),
        }
    }

    /// As [`Self::begin`] does it, once there is room.
    pub(super) async fn do_with_room(self: &Rc<Self>, request: Request) -> Result<Reply> {
        let room = self.reserve(|state| state.bound_of(&request)).await?;
        let pending = self.do_in(room, request);
        self.wait(pending).await
    }

    /// Room for what `request` appends, where that is there now and the request is within its limits.
    fn reserve_at_once(self: &Rc<Self>, request: &Request) -> Option<Reservation<R, S>> {
        let (entries, bytes) = self.state.borrow().bound_of(request);
        self.journal.try_reserve(entries, bytes).ok().flatten()
    }
}

impl State {
    /// Entries that `request` may append, and bytes beyond their fixed part.
    fn bound_of(&self, request: &Request) -> (usize, usize) {
        match request {
            Request::Accept { key, record, copy, .. } => {
                self.step_bound(key, Some(record), copy.as_ref())
            }
            Request::Certify { key, .. } => (1 + self.frees_at_most(key), key.as_bytes().len()),
            Request::StageSmall { key, shard, .. } => (1, key.as_bytes().len() + shard.bytes.len()),
            other => unreachable!("{other:?} takes no room"),
        }
    }
}
