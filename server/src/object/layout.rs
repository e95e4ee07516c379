//! How a payload is spread: codec, shard counts, stripe unit and drive order, chosen once when a
//! PUT begins and then stored in the record. Nothing here is ever derived a second time.

use basalt_engine::record::{COPY_BYTES_MAX, Layout};
use basalt_engine::units::{PayloadId, SET_DRIVES_MAX, SetIndex};

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub set: SetIndex,
    /// Drives in the set.
    pub drives: u8,
    /// Parity shards of the object's storage class.
    pub parity: u8,
    /// Data shards: drives minus parity, or fewer while drives are down.
    pub data: u8,
    /// The drive that holds shard 0; the others follow in rotation.
    pub first_drive: u8,
    /// Drives known to be down, one bit each: they come last in the order.
    pub down: u16,
}

/// Bytes of object data that two windows of stripes of one stream are built for; decides the unit.
const UNIT_BYTES_LARGE: u32 = 128 * 1024;
const UNIT_BYTES_WIDE: u32 = 64 * 1024;
/// Sets with more data shards than this take the smaller unit, so that a stripe stays in cache.
const WIDE_DATA_SHARDS: u8 = 6;

pub(super) fn choose(payload: PayloadId, bytes: u64, part: u16, spread: Spread) -> Layout {
    assert!(spread.data >= 1 && spread.data + spread.parity <= spread.drives);
    let copies = bytes <= COPY_BYTES_MAX || spread.data == 1;
    let (codec, data_shards) = if copies { (0, 1) } else { (1, spread.data) };
    let shards = data_shards + spread.parity;
    let unit_bytes =
        if data_shards > WIDE_DATA_SHARDS { UNIT_BYTES_WIDE } else { UNIT_BYTES_LARGE };
    Layout {
        payload,
        bytes,
        codec,
        data_shards,
        parity_shards: spread.parity,
        unit_bytes,
        set: spread.set.0,
        part,
        order: order(spread, shards),
    }
}

/// The rotation that begins at the key's first drive; drives that are down go to its end, so that
/// as few shards as possible are owed.
fn order(spread: Spread, shards: u8) -> [u8; SET_DRIVES_MAX] {
    let rotation = (0..spread.drives).map(|i| (spread.first_drive + i) % spread.drives);
    let is_down = |drive: &u8| spread.down & (1 << *drive) != 0;
    let mut order = [0; SET_DRIVES_MAX];
    let chosen = rotation
        .clone()
        .filter(|drive| !is_down(drive))
        .chain(rotation.filter(is_down))
        .take(usize::from(shards));
    for (place, drive) in order.iter_mut().zip(chosen) {
        *place = drive;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Spread =
        Spread { set: SetIndex(0), drives: 4, parity: 2, data: 2, first_drive: 3, down: 0 };

    #[test]
    fn small_objects_are_copied_and_larger_ones_coded() {
        let small = choose(PayloadId(1), COPY_BYTES_MAX, 0, SPREAD);
        assert_eq!((small.codec, small.data_shards, small.parity_shards), (0, 1, 2));
        assert_eq!(small.order[..3], [3, 0, 1]);
        assert!(small.is_co_staged());
        let large = choose(PayloadId(1), COPY_BYTES_MAX + 1, 0, SPREAD);
        assert_eq!((large.codec, large.data_shards, large.parity_shards), (1, 2, 2));
        assert_eq!(large.order[..4], [3, 0, 1, 2]);
    }

    #[test]
    fn drives_that_are_down_come_last() {
        let layout = choose(PayloadId(1), 1 << 20, 0, Spread { down: 0b1001, ..SPREAD });
        assert_eq!(layout.order[..4], [1, 2, 3, 0]);
    }
}
