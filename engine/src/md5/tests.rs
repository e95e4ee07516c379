//! Compared with the reference for all short lengths, all cuts, and random mixes of streams.

use md5::{Digest, Md5};

use super::*;
use crate::sim::Prng;

fn reference(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn body(length: usize, salt: usize) -> Bytes {
    (0..length).map(|at| (at * 7 + at / 251 + salt * 13) as u8).collect()
}

#[test]
fn every_length_up_to_some_blocks_in_any_two_pieces() {
    let mut streams = Streams::default();
    for length in 0..300 {
        let body = body(length, 0);
        for cut in [0, 1, 63, 64, 65, length / 2, length].map(|cut| cut.min(length)) {
            let id = streams.open();
            streams.push(id, body.slice(..cut));
            streams.push(id, body.slice(cut..));
            assert_eq!(streams.finish(id), reference(&body), "{length} bytes cut at {cut}");
        }
    }
}

#[test]
fn random_mixes_of_streams_of_all_kernels() {
    for kernel in Kernel::all() {
        for seed in 0..60 {
            mix(kernel, seed);
        }
    }
}

/// Streams that open, get pieces, are run, closed and finished in any order.
fn mix(kernel: Kernel, seed: u64) {
    let mut prng = Prng::new(seed);
    let mut streams = Streams { kernel, ..Streams::default() };
    let most = 1 + prng.index(40);
    let mut open: Vec<(StreamId, Bytes, usize)> = Vec::new();
    for salt in 0..400 {
        if open.len() < most {
            let most = [10, 200, 5_000, 60_000][prng.index(4)];
            let length = prng.index(most);
            open.push((streams.open(), body(length, salt), 0));
        }
        let at = prng.index(open.len());
        let (id, body, pushed) = &mut open[at];
        let end = (*pushed + prng.index(9_000)).min(body.len());
        streams.push(*id, body.slice(*pushed..end));
        *pushed = end;
        match prng.below(12) {
            0 => {
                let left = prng.index(2_000);
                streams.turn(*id, left);
                assert!(streams.pending_bytes(*id) <= left, "a turn is longer than what there is");
            }
            1 => {
                streams.close(*id);
                open.swap_remove(at);
            }
            _ if *pushed == body.len() => {
                assert_eq!(streams.finish(*id), reference(body), "{kernel:?} seed {seed}");
                open.swap_remove(at);
            }
            _ => {}
        }
    }
    for (id, body, pushed) in open {
        streams.push(id, body.slice(pushed..));
        assert_eq!(streams.finish(id), reference(&body), "{kernel:?} seed {seed}");
    }
}

#[test]
fn who_takes_turns_takes_the_others_along() {
    let mut streams = Streams::default();
    let long = body(2 * TURN_BYTES + BLOCK, 1);
    let [one, two] = [0, 1].map(|_| streams.open());
    streams.push(one, long.clone());
    streams.push(two, long.slice(..TURN_BYTES / 2));
    assert!(!streams.is_alone());
    streams.turn(one, TURN_BYTES / 4);
    assert_eq!(streams.pending_bytes(one), TURN_BYTES + BLOCK, "that is one turn");
    assert_eq!(streams.pending_bytes(two), 0, "it went along");
    streams.turn(one, BLOCK);
    assert_eq!(streams.pending_bytes(one), BLOCK, "that much was asked to be left");
    assert_eq!(streams.finish(two), reference(&long[..TURN_BYTES / 2]));
    assert!(streams.is_alone());
    assert_eq!(streams.finish(one), reference(&long));
}
