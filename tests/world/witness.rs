//! What is seen of the drives from outside: their answers, which [`super::judge`] judges, and the payload
//! rule (I7): whenever a write is answered with success, enough shards of
//! each of its payloads are durable, as drives said and as was true when they said it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use basalt_engine::record::{Layout, Record};
use basalt_engine::request::{Reply, Request};
use basalt_engine::units::{DriveIndex, PayloadId, SetIndex, VersionId};
use basalt_net::quorum::shards_to_acknowledge_degraded;

use super::judge::{Judge, Speaker};
use super::mailbox::SimHost;

#[derive(Default)]
pub struct Witness {
    versions: RefCell<BTreeMap<VersionId, Record>>,
    /// The drives that said that they hold their shard, one bit each.
    holders: RefCell<BTreeMap<PayloadId, u16>>,
    judge: RefCell<Judge>,
}

/// A drive, and the payloads of which it is asked whether it holds its shards.
pub struct Asked(DriveIndex, Vec<PayloadId>);

impl Witness {
    /// Has the drive handle a request, and judges its answer.
    pub async fn overhear(
        &self,
        host: &Rc<SimHost>,
        set: SetIndex,
        position: DriveIndex,
        request: Request,
    ) -> Reply {
        let speaker = Speaker::of(host, set, position);
        let asked = speaker.and_then(|speaker| self.judge.borrow_mut().asks(speaker, &request));
        let reply = host.clone().handle(request).await;
        if let Some(asked) = asked
            && let Some(speaker) = Speaker::of(host, set, position)
        {
            self.judge.borrow_mut().answered(speaker, &asked, &reply);
        }
        reply
    }

    /// How many versions are decided to be lost, and how many answers were judged.
    pub fn verdict(&self) -> (usize, u64) {
        let judge = self.judge.borrow();
        (judge.lost.len(), judge.answers)
    }

    pub fn asks(&self, drive: DriveIndex, request: &Request) -> Option<Asked> {
        match request {
            Request::Accept { record, .. } | Request::Learn { record, .. } => {
                self.versions.borrow_mut().insert(record.version(), record.clone());
                let payloads = of_drive(record, drive).map(|layout| layout.payload);
                Some(Asked(drive, payloads.collect()))
            }
            Request::Holds { payloads } => Some(Asked(drive, payloads.clone())),
            _ => None,
        }
    }

    /// The drive has answered this very moment: what it says must be so, unless the record was
    /// superseded there, or the drive fenced, meanwhile. Answers which shards the drive says that it holds.
    pub fn answered(&self, host: &SimHost, asked: &Asked, reply: &Reply) -> Vec<PayloadId> {
        let Asked(drive, payloads) = asked;
        let said: Vec<PayloadId> = match reply {
            Reply::Accepted { has_shards: true } => payloads.clone(),
            Reply::Holds(holds) => {
                let said = payloads.iter().zip(holds).filter(|(_, holds)| **holds);
                said.map(|(payload, _)| *payload).collect()
            }
            _ => return Vec::new(),
        };
        // Fenced since: what it said can not be looked at any more.
        let Some(open) = host.drive() else { return said };
        for payload in &said {
            let is_true = open.holds_durably(*payload) || !open.names(*payload);
            assert!(is_true, "I7: {drive:?} says that it has {payload}");
        }
        said
    }

    /// The answer has arrived.
    pub fn told(&self, asked: &Asked, said: &[PayloadId]) {
        let mut holders = self.holders.borrow_mut();
        for payload in said {
            *holders.entry(*payload).or_default() |= 1 << asked.0.0;
        }
    }

    /// A write of `version` is answered with success.
    pub fn acknowledged(&self, version: VersionId) {
        self.judge.borrow_mut().acknowledged(version);
        let versions = self.versions.borrow();
        let record = versions.get(&version).expect("what is acknowledged was proposed");
        for layout in record.payloads() {
            let holders = self.holders.borrow().get(&layout.payload).copied().unwrap_or(0);
            let durable = holders.count_ones() as usize;
            let needed = shards_to_acknowledge_degraded(layout.data_shards, layout.parity_shards);
            assert!(
                durable >= needed,
                "I7: version {version} is acknowledged with {durable} durable shards of {layout:?}"
            );
        }
    }
}

fn of_drive(record: &Record, drive: DriveIndex) -> impl Iterator<Item = Layout> + '_ {
    record.payloads().filter(move |layout| layout.shard_of(drive.0).is_some())
}
