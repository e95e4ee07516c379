//! A client that asks random things about keys of its own, one after the other, and keeps what the
//! drive should know after each.

use std::rc::Rc;

use basalt_engine::record::{Kind, Record};
use basalt_engine::request::{Certificate, Refusal, Reply, Request};
use basalt_engine::sim::Prng;
use basalt_engine::units::{Ballot, Key, OperationId, PayloadId, Slot};

use crate::model::{Model, Shape};
use crate::support::{
    EPOCH, SHARD_BLOCKS_MAX, SimDrive, check_run, check_small, digest, key, layout, record, small,
    stage_run,
};

/// One change that was asked for.
pub(crate) struct Step {
    /// Where the disk's recording stood when it was asked for.
    pub(crate) asked: usize,
    /// Where it stood when the drive said that it is durable; `None` where the drive does not.
    pub(crate) durable: Option<usize>,
    /// What the drive knows when the change is made.
    pub(crate) after: Model,
}

/// How often a client does what, in parts of the sum: copies with their records, staged small
/// shards, shards in runs, and everything else each.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) copies: u64,
    pub(crate) smalls: u64,
    pub(crate) runs: u64,
    pub(crate) others: u64,
}

pub(crate) const EVERYTHING: Mix = Mix { copies: 4, smalls: 2, runs: 2, others: 1 };

pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) keys: Vec<Key>,
    pub(crate) steps: Vec<Step>,
    pub(crate) model: Model,
    mix: Mix,
    prng: Prng,
    drawn: u128,
    /// Says where the recording stands.
    clock: Rc<dyn Fn() -> usize>,
}

impl Client {
    pub(crate) fn new(number: u64, seed: u64, mix: Mix, clock: Rc<dyn Fn() -> usize>) -> Self {
        let keys = (0..5).map(|at| key(&format!("{number}/{at}/name"))).collect();
        let prng = Prng::new(seed << 8 | number);
        let start = Step { asked: 0, durable: Some(0), after: Model::default() };
        let (steps, model) = (vec![start], Model::default());
        Self { number, keys, steps, model, mix, prng, drawn: 0, clock }
    }

    fn fresh_id(&mut self) -> u128 {
        self.drawn += 1;
        u128::from(self.number) << 100 | u128::from(self.prng.next_u64()) << 20 | self.drawn
    }

    /// The slot that a new value of `key` goes to, and its base.
    fn next_slot(&self, key: &Key) -> (Slot, Option<Certificate>) {
        match self.model.keys.get(key).and_then(|state| state.head()) {
            Some((slot, head)) => {
                (slot.next(), Some(Certificate { slot, operation: head.operation() }))
            }
            None => (Slot::first(0), None),
        }
    }

    /// Asks for a change after which the drive should know `after`. With `None` the drive may
    /// answer before it is durable. Says whether the change was made.
    async fn ask(
        &mut self,
        drive: &Rc<SimDrive>,
        request: Request,
        after: Model,
        is_durable: bool,
    ) -> Reply {
        let asked = (self.clock)();
        let shown = format!("{request:?}");
        let reply = drive.handle(request).await;
        // Where nothing changed, the drive promises nothing about what changed before.
        let durable = (is_durable && after != self.model).then(|| (self.clock)());
        match &reply {
            Reply::Done | Reply::Accepted { .. } | Reply::Promised { .. } => {
                self.model = after.clone();
                self.steps.push(Step { asked, durable, after });
            }
            Reply::Refused { .. } | Reply::Failed(basalt_engine::Error::Full { .. }) => {
                // Nothing changed; what stood before is durable.
                let after = self.model.clone();
                self.steps.push(Step { asked, durable: None, after });
            }
            other => panic!("{shown}: {other:?}"),
        }
        reply
    }

    /// One random thing.
    pub(crate) async fn act(&mut self, drive: &Rc<SimDrive>) {
        let at = self.prng.index(self.keys.len());
        let key = self.keys[at].clone();
        if self.prng.below(50) == 0 {
            match drive.compact().await {
                Ok(()) | Err(basalt_engine::Error::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let Mix { copies, smalls, runs, others } = self.mix;
        let drawn = self.prng.below(copies + smalls + runs + 12 * others);
        if drawn < copies {
            return self.put_copy(drive, &key).await;
        }
        if drawn < copies + smalls {
            return self.put_small(drive, &key).await;
        }
        if drawn < copies + smalls + runs {
            return self.put_run(drive, &key).await;
        }
        match (drawn - copies - smalls - runs) / others {
            0..=1 => self.delete(drive, &key).await,
            2..=4 => self.certify(drive, &key).await,
            5 => self.prepare(drive, &key).await,
            6 => self.learn(drive, &key).await,
            7 => self.abandon(drive, &key).await,
            8 => self.discard(drive).await,
            9 => self.drop_shard(drive, &key).await,
            10 => self.read(drive).await,
            _ => self.look(drive, &key).await,
        }
    }

    async fn accept(
        &mut self,
        drive: &Rc<SimDrive>,
        key: &Key,
        value: Record,
        shape: Option<Shape>,
    ) {
        let (slot, base) = self.next_slot(key);
        let promised = self.model.digest(key).slots.last().map(|last| (last.slot, last.promised));
        let ballot = match promised {
            Some((at, promised)) if at == slot && !promised.is_fast() && self.prng.coin() => {
                promised
            }
            _ => Ballot::FAST,
        };
        let mut after = self.model.clone();
        let expected = after.update(key, |state| state.accept(slot, ballot, base, &value));
        let mut copy = None;
        if let (Ok(()), Some(shape @ Shape::Small { bytes })) = (&expected, shape) {
            let payload = value.payload(0).payload;
            copy = Some(small(payload, bytes));
            after.held.insert(payload, (key.clone(), shape));
        }
        let record = value.clone();
        let request = Request::Accept {
            epoch: EPOCH,
            key: key.clone(),
            slot,
            ballot,
            base,
            record,
            copy,
            fresh: ballot.is_fast(),
        };
        let reply = self.ask(drive, request, after.clone(), true).await;
        match (reply, expected) {
            (Reply::Accepted { has_shards }, Ok(())) => {
                let held = value.payloads().all(|layout| after.held.contains_key(&layout.payload));
                assert_eq!(has_shards, held);
            }
            // Refused before anything else is looked at.
            (Reply::Refused { refusal: Refusal::Full, .. }, _) => {}
            (Reply::Refused { refusal, digest }, Err(expected)) => {
                assert_eq!(refusal, expected);
                // A refused accept may still have brought a certificate with it.
                self.note_refused(&after);
                assert_eq!(digest, self.model.digest(key));
            }
            (reply, expected) => panic!("{reply:?}, not {expected:?}"),
        }
    }

    /// A refusal changed what the drive knows after all.
    fn note_refused(&mut self, after: &Model) {
        if *after == self.model {
            return;
        }
        let last = self.steps.last_mut().expect("there is a step");
        last.after = after.clone();
        last.durable = Some((self.clock)());
        self.model = after.clone();
    }

    async fn put_copy(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let bytes = 1 + self.prng.index(8000);
        let (payload, operation) = (PayloadId(self.fresh_id()), OperationId(self.fresh_id()));
        let value = record(Kind::Data, operation, vec![layout(payload, bytes as u64)]);
        self.accept(drive, key, value, Some(Shape::Small { bytes })).await;
    }

    async fn put_small(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let bytes = 8200 + self.prng.index(9000);
        let (payload, operation) = (PayloadId(self.fresh_id()), OperationId(self.fresh_id()));
        let mut after = self.model.clone();
        after.held.insert(payload, (key.clone(), Shape::Small { bytes }));
        let shard = small(payload, bytes);
        let request = Request::StageSmall { payload, key: key.clone(), operation, shard };
        let reply = self.ask(drive, request, after, true).await;
        if matches!(reply, Reply::Done) && self.prng.below(5) > 0 {
            let value = record(Kind::Data, operation, vec![layout(payload, bytes as u64)]);
            self.accept(drive, key, value, None).await;
        }
    }

    async fn put_run(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let blocks = 1 + self.prng.below(SHARD_BLOCKS_MAX);
        let (payload, operation) = (PayloadId(self.fresh_id()), OperationId(self.fresh_id()));
        let asked = (self.clock)();
        let reply = stage_run(drive, payload, key, operation, blocks).await;
        match reply {
            Reply::Done => {
                let shape = Shape::Run { blocks };
                self.model.held.insert(payload, (key.clone(), shape));
                let (durable, after) = (Some((self.clock)()), self.model.clone());
                self.steps.push(Step { asked, durable, after });
            }
            Reply::Failed(basalt_engine::Error::Full { .. }) => return,
            other => panic!("{other:?}"),
        }
        if self.prng.below(5) > 0 {
            let bytes = blocks * 4096;
            let value = record(Kind::Data, operation, vec![layout(payload, bytes.max(9000))]);
            self.accept(drive, key, value, None).await;
        }
    }

    async fn delete(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let operation = OperationId(self.fresh_id());
        self.accept(drive, key, record(Kind::Tombstone, operation, vec![]), None).await;
    }

    async fn certify(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let digest = self.model.digest(key);
        let Some((slot, accepted)) = digest
            .slots
            .iter()
            .rev()
            .find_map(|slot| Some((slot.slot, &slot.accepted.as_ref()?.1)))
        else {
            return;
        };
        let certificate = Certificate { slot, operation: accepted.operation() };
        let settled = self.prng.below(3) > 0;
        let whole = accepted.payloads().all(|layout| self.model.held.contains_key(&layout.payload));
        let mut after = self.model.clone();
        after.update(key, |state| state.certify(certificate, settled && whole));
        let listed = Vec::new();
        let request = Request::Certify { key: key.clone(), certificate, settled, listed };
        self.ask(drive, request, after, false).await;
    }

    async fn prepare(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let (slot, base) = self.next_slot(key);
        let ballot = Ballot { round: 1 + self.prng.below(4) as u32, proposer: self.number };
        let mut after = self.model.clone();
        let expected = after.update(key, |state| state.prepare(slot, ballot, base));
        let request = Request::Prepare { epoch: EPOCH, key: key.clone(), slot, ballot, base };
        let reply = self.ask(drive, request, after.clone(), true).await;
        match (reply, expected) {
            (Reply::Promised { accepted, .. }, Ok(expected)) => assert_eq!(accepted, expected),
            (Reply::Refused { refusal, .. }, Err(expected)) => {
                assert_eq!(refusal, expected);
                self.note_refused(&after);
            }
            (reply, expected) => panic!("{reply:?}, not {expected:?}"),
        }
    }

    async fn learn(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let (slot, _) = self.next_slot(key);
        let (bytes, payload) = (1 + self.prng.index(500), PayloadId(self.fresh_id()));
        let operation = OperationId(self.fresh_id());
        let value = record(Kind::Data, operation, vec![layout(payload, bytes as u64)]);
        let mut after = self.model.clone();
        after.update(key, |state| state.learn(slot, &value));
        let copy = self.prng.coin().then(|| small(payload, bytes));
        if copy.is_some() {
            after.held.insert(payload, (key.clone(), Shape::Small { bytes }));
        }
        let (epoch, key) = (EPOCH, key.clone());
        let request = Request::Learn { epoch, key, slot, record: value, copy };
        self.ask(drive, request, after, true).await;
    }

    async fn abandon(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let (slot, _) = self.next_slot(key);
        let ballot = Ballot { round: 2, proposer: self.number };
        let mut after = self.model.clone();
        after.update(key, |state| state.abandon(slot, ballot));
        let request = Request::Abandon { epoch: EPOCH, key: key.clone(), slot, ballot };
        self.ask(drive, request, after, true).await;
    }

    async fn discard(&mut self, drive: &Rc<SimDrive>) {
        for payload in self.model.orphans() {
            let mut after = self.model.clone();
            after.held.remove(&payload);
            self.ask(drive, Request::Discard { payload }, after, true).await;
        }
    }

    async fn drop_shard(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        let Some(payload) = self.some_payload() else { return };
        let mut after = self.model.clone();
        let held = after.held.remove(&payload).is_some();
        let mut naming: Vec<Key> = after
            .keys
            .iter()
            .filter(|(_, state)| {
                let mut layouts = state.records().flat_map(|record| record.payloads());
                layouts.any(|layout| layout.payload == payload)
            })
            .map(|(key, _)| key.clone())
            .collect();
        if held && after.keys.contains_key(key) {
            naming.push(key.clone());
        }
        for key in naming {
            after.update(&key, |state| state.unsettle());
        }
        let request = Request::DropShard { payload, key: key.clone() };
        self.ask(drive, request, after, true).await;
    }

    fn some_payload(&mut self) -> Option<PayloadId> {
        let count = self.model.held.len();
        let at = self.prng.index(count.max(1));
        self.model.held.keys().nth(at).copied()
    }

    async fn read(&mut self, drive: &Rc<SimDrive>) {
        if let Some(payload) = self.some_payload() {
            check_payload(drive, payload, self.model.held[&payload].1).await;
        }
    }

    async fn look(&mut self, drive: &Rc<SimDrive>, key: &Key) {
        assert_eq!(digest(drive, key).await, self.model.digest(key), "{key:?}");
        let missing = PayloadId(u128::MAX);
        let asked: Vec<_> = self.model.held.keys().copied().chain([missing]).collect();
        let count = asked.len();
        match drive.handle(Request::Holds { payloads: asked }).await {
            Reply::Holds(holds) => {
                assert!(holds[..count - 1].iter().all(|&held| held) && !holds[count - 1]);
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn check_payload(drive: &Rc<SimDrive>, payload: PayloadId, shape: Shape) {
    match shape {
        Shape::Small { bytes } => check_small(drive, payload, bytes).await,
        Shape::Run { blocks } => check_run(drive, payload, blocks).await,
    }
}
