//! One place for a drive in a set, through the drive's whole life: open, fenced, gone, back, replaced.
//!
//! A host answers requests from the drive while there is one, and "unavailable" while there is none.
//! It looks at its place once a second: a drive whose directory was renamed, deleted or overwritten is
//! fenced; one that comes back is opened again; a blank directory where a drive is expected becomes its
//! replacement, which joins the set without a vote and gets one after a full compare.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::drive::{Begun, Drive, Format};
use basalt_engine::request::{Reply, Request, SetMap};
use basalt_engine::seam::{Runtime, Storage};
use basalt_engine::units::{BlockCount, DeploymentId, DriveId, DriveIndex, Epoch, SetIndex};
use basalt_net::cores::Served;
use basalt_net::mailbox::Mailbox;
use futures_util::future::{Either, select};

use super::formation::{Found, Identity};
use crate::object::Store;
use crate::object::membership::map_key;

/// Between two looks at a drive's place.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look that takes longer fences the drive.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// The place a drive is put in: a directory on a machine, or its likeness in a simulation.
pub trait Bay: 'static {
    type Storage: Storage;
    /// What an operator reads: the path.
    fn name(&self) -> String;
    /// What stands here now.
    fn look(&self) -> impl Future<Output = Found>;
    /// Opens what [`Bay::look`] found to be ours.
    fn open(&self) -> impl Future<Output = Result<Self::Storage, Error>>;
    /// Makes an empty storage in a blank place.
    fn create(&self) -> impl Future<Output = Result<Self::Storage, Error>>;
}

/// Lengths of a drive's regions other than those that fit its capacity; for simulations.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sizes {
    pub journal_blocks: Option<BlockCount>,
    pub segment_blocks: Option<BlockCount>,
}

pub struct Host<B: Bay, R: Runtime> {
    bay: B,
    runtime: R,
    deployment: DeploymentId,
    set: SetIndex,
    position: DriveIndex,
    sizes: Sizes,
    state: RefCell<State<R, B::Storage>>,
    /// A compare of this drive is under way.
    comparing: Cell<bool>,
}

enum State<R: Runtime, S: Storage> {
    Open(Rc<Drive<R, S>>),
    Down(String),
}

impl<B: Bay, R: Runtime> Host<B, R> {
    pub fn new(
        bay: B,
        runtime: R,
        deployment: DeploymentId,
        set: SetIndex,
        position: DriveIndex,
        sizes: Sizes,
    ) -> Rc<Self> {
        let state = RefCell::new(State::Down("not opened yet".to_owned()));
        let comparing = Cell::new(false);
        Rc::new(Self { bay, runtime, deployment, set, position, sizes, state, comparing })
    }

    /// What an operator reads: the path.
    pub fn name(&self) -> String {
        self.bay.name()
    }

    /// Formats the drive as a founding member, still forming.
    pub async fn found(&self, drive: DriveId, map: SetMap) -> Result<(), Error> {
        self.format(drive, map).await
    }

    /// Opens the drive that stands in the bay. Whoever opens it knows that its deployment is formed; one
    /// that a crash left without the mark gets it now. Without, it would count for nothing, should all
    /// that have the mark be lost.
    pub async fn open(&self) -> Result<(), Error> {
        let storage = self.bay.open().await?;
        let drive = Drive::open(self.runtime.clone(), storage).await?;
        if let Some(damage) = drive.damaged() {
            tracing::error!(
                drive = self.bay.name(),
                set = self.set.0,
                %damage,
                "drive is damaged: its journal or index lost acknowledged state. It only helps \
                 to read payloads; empty its directory to have it repaired from the others"
            );
        } else if drive.is_forming() {
            drive.mark_formed().await?;
        }
        *self.state.borrow_mut() = State::Open(drive);
        Ok(())
    }

    /// The map that the open drive knows.
    pub fn map(&self) -> Option<SetMap> {
        self.drive().map(|drive| drive.map())
    }

    /// What stands here, for other nodes that start.
    pub async fn found_here(&self) -> Found {
        match self.drive() {
            Some(drive) => Found::Ours(Identity {
                drive: drive.id(),
                deployment: self.deployment,
                set: self.set,
                position: self.position,
                forming: drive.is_forming(),
                map: drive.map(),
            }),
            None => self.bay.look().await,
        }
    }

    pub async fn handle(self: Rc<Self>, request: Request) -> Reply {
        match self.serve(request) {
            Served::Now(reply) => reply,
            Served::Later(reply) => reply.await,
        }
    }

    /// Answers a request within the call, where nothing has to be waited for.
    pub fn serve(self: Rc<Self>, request: Request) -> Served {
        let unavailable = |reason| Served::Now(Reply::Failed(Error::Unavailable { reason }));
        let Some(drive) = self.drive() else { return unavailable("the drive is down") };
        if self.is_candidate(&drive) && !asks_a_candidate(self.set, &request) {
            return unavailable("the drive has not joined its set");
        }
        match drive.begin(request) {
            Begun::Answered(reply) => Served::Now(reply),
            Begun::Until(pending) => Served::Later(Box::pin(async move {
                let reply = drive.finish(pending).await;
                self.fence_if_failed(&drive);
                reply
            })),
            Begun::Later(request) => Served::Later(Box::pin(async move {
                let reply = drive.handle_later(request).await;
                self.fence_if_failed(&drive);
                reply
            })),
        }
    }

    fn fence_if_failed(&self, drive: &Rc<Drive<R, B::Storage>>) {
        if let Some(error) = drive.fenced() {
            self.fence(drive, &error.to_string());
        }
    }

    /// Ends the drive in an orderly way: everything durable, nothing left to replay.
    pub async fn close(&self) {
        if let Some(drive) = self.drive() {
            *self.state.borrow_mut() = State::Down("the node stops".to_owned());
            if let Err(error) = drive.close().await {
                tracing::warn!(drive = self.bay.name(), %error, "drive was not closed cleanly");
            }
        }
    }

    /// The drive, while it is open.
    pub fn drive(&self) -> Option<Rc<Drive<R, B::Storage>>> {
        match &*self.state.borrow() {
            State::Open(drive) => Some(drive.clone()),
            State::Down(_) => None,
        }
    }

    /// Whether the drive is formatted but in no map yet.
    fn is_candidate(&self, drive: &Drive<R, B::Storage>) -> bool {
        !drive.is_in_its_map(self.position)
    }

    /// Looks after the place for as long as the core runs.
    pub async fn watch<M: Mailbox>(self: Rc<Self>, store: Store<M, R>) {
        loop {
            self.runtime.sleep(LOOK_INTERVAL).await;
            match self.drive() {
                Some(drive) => self.watch_open(&drive, &store).await,
                None => self.watch_down(&store).await,
            }
        }
    }

    async fn watch_open<M: Mailbox>(
        self: &Rc<Self>,
        drive: &Rc<Drive<R, B::Storage>>,
        store: &Store<M, R>,
    ) {
        let probe = std::pin::pin!(drive.probe());
        let limit = std::pin::pin!(self.runtime.sleep(LOOK_DEADLINE));
        match select(probe, limit).await {
            Either::Left((Ok(()), _)) if self.is_candidate(drive) => {
                if let Err(error) = self.join(drive.id(), store).await {
                    tracing::warn!(drive = self.bay.name(), %error, "drive cannot join its set yet");
                }
            }
            Either::Left((Ok(()), _)) => self.help_into_the_set(drive, store),
            Either::Left((Err(error), _)) => self.fence(drive, &error.to_string()),
            Either::Right(_) => self.fence(drive, "it does not answer"),
        }
    }

    /// Ends the use of a drive that failed. Its state in memory goes; its bytes stay.
    fn fence(&self, drive: &Rc<Drive<R, B::Storage>>, reason: &str) {
        let current = self.drive().is_some_and(|current| Rc::ptr_eq(&current, drive));
        if !current {
            return;
        }
        *self.state.borrow_mut() = State::Down(reason.to_owned());
        drive.fence(Error::Unavailable { reason: "the drive is fenced" });
        tracing::error!(
            drive = self.bay.name(),
            set = self.set.0,
            position = self.position.0,
            reason,
            "drive fenced: it is not used until it is whole again or replaced by an empty one"
        );
    }

    async fn watch_down<M: Mailbox>(self: &Rc<Self>, store: &Store<M, R>) {
        let result = match self.bay.look().await {
            Found::Unusable(reason) => Err(reason),
            Found::Ours(identity) => self.take_back(&identity, store).await,
            Found::Blank => self.replace(store).await,
            Found::Unreached => unreachable!("a bay looks at what is here"),
        };
        if let Err(reason) = result {
            self.note_down(reason);
        }
    }

    /// Says once why the drive stays down.
    pub fn note_down(&self, reason: String) {
        let mut state = self.state.borrow_mut();
        if matches!(&*state, State::Down(known) if *known == reason) {
            return;
        }
        tracing::warn!(
            drive = self.bay.name(),
            set = self.set.0,
            position = self.position.0,
            reason,
            "drive stays down"
        );
        *state = State::Down(reason);
    }

    async fn take_back<M: Mailbox>(
        &self,
        identity: &Identity,
        store: &Store<M, R>,
    ) -> Result<(), String> {
        let here = (self.deployment, self.set, self.position);
        if (identity.deployment, identity.set, identity.position) != here {
            return Err(format!(
                "it belongs to deployment {}, set {}, place {}",
                identity.deployment, identity.set.0, identity.position.0
            ));
        }
        // A drive installs decided maps only; this one may be the first to show a newer one.
        store.learn_map(self.set, identity.map.clone());
        let expected = store.map(self.set).drives[usize::from(self.position.0)].drive;
        if identity.drive != expected && identity.never_joined() {
            return self.replace(store).await;
        }
        if identity.drive != expected {
            return Err("it was replaced and must not return; empty it to use it again".to_owned());
        }
        self.open().await.map_err(|error| error.to_string())?;
        tracing::info!(drive = self.bay.name(), set = self.set.0, "drive is back");
        Ok(())
    }

    /// Makes a blank place a new member of the set, without a vote. The empty directory in the drive's
    /// place is the operator's word that the former drive is gone for good. So the newcomer, formatted
    /// as a candidate, may already help to decide the map that admits it: else a set that lost N drives
    /// where W needs more than the others could never be made whole again.
    async fn replace<M: Mailbox>(&self, store: &Store<M, R>) -> Result<(), String> {
        if store.map(self.set).epoch == Epoch(0) {
            return Err("no drive of its set is here to repair it from".to_owned());
        }
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let drive = DriveId(self.runtime.random_u128());
        self.format(drive, store.map(self.set)).await.map_err(|e| text(&e))?;
        self.open().await.map_err(|e| text(&e))?;
        self.join(drive, store).await.map_err(|e| text(&e))
    }

    async fn join<M: Mailbox>(
        &self,
        drive: DriveId,
        store: &Store<M, R>,
    ) -> Result<(), crate::object::Error> {
        let map = store.join(self.set, self.position, drive).await?;
        store.install(self.set, &map).await?;
        tracing::info!(
            drive = self.bay.name(),
            set = self.set.0,
            position = self.position.0,
            "empty drive joined its set; it is being filled"
        );
        Ok(())
    }

    async fn format(&self, drive: DriveId, map: SetMap) -> Result<(), Error> {
        let storage = self.bay.create().await?;
        let format = Format {
            drive,
            deployment: self.deployment,
            set: self.set,
            position: self.position.0,
            map,
            journal_blocks: self.sizes.journal_blocks,
            segment_blocks: self.sizes.segment_blocks,
        };
        Drive::format(&self.runtime, &storage, &format).await
    }

    /// A drive that knows an older map gets the present one; a member without a vote is compared and
    /// admitted.
    fn help_into_the_set<M: Mailbox>(
        self: &Rc<Self>,
        drive: &Rc<Drive<R, B::Storage>>,
        store: &Store<M, R>,
    ) {
        let map = store.map(self.set);
        let behind = drive.map().epoch < map.epoch;
        let blank = !map.drives[usize::from(self.position.0)].voting;
        if (!behind && !blank) || self.comparing.get() || drive.damaged().is_some() {
            return;
        }
        self.comparing.set(true);
        let (host, store) = (self.clone(), store.clone());
        self.runtime.spawn(async move {
            let result = if behind {
                store.install(host.set, &map).await
            } else {
                host.compare_and_admit(&store).await
            };
            if let Err(error) = result {
                tracing::warn!(drive = host.bay.name(), %error, "drive is not admitted yet");
            }
            host.comparing.set(false);
        });
    }

    async fn compare_and_admit<M: Mailbox>(
        &self,
        store: &Store<M, R>,
    ) -> Result<(), crate::object::Error> {
        // Should the drive be exchanged meanwhile, this compare says nothing of its successor.
        let drive = store.map(self.set).drives[usize::from(self.position.0)].drive;
        // What was decided before the newcomer's map was durable on W drives is what it may lack.
        store.install(self.set, &store.map(self.set)).await?;
        let started = self.runtime.now();
        let mut reported = started;
        let clock = self.runtime.clone();
        let (name, set) = (self.bay.name(), self.set.0);
        let compared = store
            .compare(self.set, self.position, |so_far| {
                let now = clock.now();
                if now.since(reported) >= Duration::from_secs(5) {
                    reported = now;
                    let per_second = so_far.keys as f64 / now.since(started).as_secs_f64();
                    tracing::info!(
                        drive = name,
                        set,
                        keys = so_far.keys,
                        per_second = per_second as u64,
                        "filling an empty drive"
                    );
                }
            })
            .await?;
        if compared.lacking > 0 {
            tracing::info!(drive = name, set, lacking = compared.lacking, "compare is repeated");
            return Ok(());
        }
        store.admit(self.set, self.position, drive).await?;
        tracing::info!(
            drive = self.bay.name(),
            set,
            keys = compared.keys,
            "drive refilled: it has everything and votes again"
        );
        Ok(())
    }
}

/// What a candidate takes part in: the decision about the map that admits it.
fn asks_a_candidate(set: SetIndex, request: &Request) -> bool {
    match request {
        Request::Accept { key, ballot, .. } => !ballot.is_fast() && *key == map_key(set),
        Request::Prepare { key, .. }
        | Request::Learn { key, .. }
        | Request::Certify { key, .. } => *key == map_key(set),
        Request::InstallMap { .. } | Request::Status => true,
        _ => false,
    }
}
