//! Rebuilding one shard on one drive from k others, run by run in bounded memory.

use std::time::Duration;

use basalt_engine::buffer::Buffer;
use basalt_engine::checksum::{self, RUN_BLOCKS};
use basalt_engine::record::{Layout, Record};
use basalt_engine::request::{Reply, Request, SmallShard};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{BLOCK_BYTES, BlockCount, DriveIndex, Key, SetIndex};
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use futures_util::future::{Either, select};

use super::error::{Error, Result};
use super::read::{self, Window};
use super::stage::checksum_shard;
use super::store::Store;

/// How long the drives may take for one step.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

/// Makes shard `shard` of `layout` durable on `drive`.
pub(super) async fn rebuild_shard<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    key: &Key,
    record: &Record,
    layout: &Layout,
    shard: usize,
    drive: DriveIndex,
) -> Result<()> {
    let rebuild = Rebuild { store, key, layout, shard, drive };
    let (payload, operation) = (layout.payload, record.operation());
    if layout.is_small() {
        let bytes = rebuild.range(Window::whole_shard(layout)).await?;
        let checksum = checksum::small_shard(payload, checksum_shard(layout, shard), &bytes);
        let shard = SmallShard { checksum, bytes };
        return rebuild
            .ask(Request::StageSmall { payload, key: key.clone(), operation, shard })
            .await;
    }
    let length_blocks = layout.shard_blocks().0;
    rebuild.ask(Request::StageOpen { payload, key: key.clone(), operation, length_blocks }).await?;
    for run in 0..length_blocks.div_ceil(RUN_BLOCKS) {
        let bytes = rebuild.range(Window::run(layout, run)).await?;
        let blocks = BlockCount(1 + BlockCount::covering(bytes.len() as u64).0);
        let mut buffer = Buffer::zeroed(blocks);
        buffer[BLOCK_BYTES..BLOCK_BYTES + bytes.len()].copy_from_slice(&bytes);
        checksum::seal_run(&mut buffer, payload, checksum_shard(layout, shard), run);
        rebuild.ask(Request::StageWrite { payload, run, buffer: buffer.into() }).await?;
    }
    rebuild.ask(Request::StageSeal { payload }).await
}

struct Rebuild<'a, M: Mailbox, R: Runtime> {
    store: &'a Store<M, R>,
    key: &'a Key,
    layout: &'a Layout,
    shard: usize,
    drive: DriveIndex,
}

impl<M: Mailbox, R: Runtime> Rebuild<'_, M, R> {
    /// The wanted shard's bytes in the window, from k of the other shards.
    async fn range(&self, window: Window) -> Result<Bytes> {
        let others = (0..self.layout.shards()).filter(|&shard| shard != self.shard);
        let requests = others
            .map(|shard| (DriveIndex(self.layout.order[shard]), window.request(self.layout)))
            .collect();
        let set = SetIndex(self.layout.set);
        let mut replies = self.store.mailbox().send(set, requests);
        let mut shards = vec![None; self.layout.shards()];
        let needed = usize::from(self.layout.data_shards);
        let mut count = 0;
        while count < needed {
            let Some((drive, reply)) = self.within_deadline(replies.next()).await? else { break };
            let Some(shard) = self.layout.shard_of(drive.0) else { continue };
            match window.verify(self.layout, shard, reply) {
                Ok(bytes) => {
                    shards[shard] = Some(bytes);
                    count += 1;
                }
                Err(read::Fault::Wrong) => {
                    self.store.report_wrong_shard(self.key, set, drive, self.layout.payload);
                }
                Err(read::Fault::Missing) => {}
            }
        }
        if count < needed {
            let short_by = u32::try_from(needed - count).expect("at most sixteen");
            return Err(Error::Unreadable { set, short_by });
        }
        let rebuilt = read::rebuild(self.layout, &shards, 1 << self.shard, window.shard_bytes());
        Ok(rebuilt.into_iter().next().expect("one shard was wanted").1)
    }

    /// One step on the drive that gets the shard.
    async fn ask(&self, request: Request) -> Result<()> {
        let set = SetIndex(self.layout.set);
        let mut replies = self.store.mailbox().send(set, vec![(self.drive, request)]);
        match self.within_deadline(replies.next()).await? {
            Some((_, Reply::Done)) => Ok(()),
            Some((_, Reply::Failed(basalt_engine::Error::Full { .. }))) => Err(Error::Full { set }),
            _ => Err(Error::Unavailable { set, action: "take a rebuilt shard", short_by: 1 }),
        }
    }

    async fn within_deadline<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let clock = self.store.runtime();
        let (future, limit) = (std::pin::pin!(future), std::pin::pin!(clock.sleep(STEP_DEADLINE)));
        match select(future, limit).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Error::Unknown { set: SetIndex(self.layout.set) }),
        }
    }
}
