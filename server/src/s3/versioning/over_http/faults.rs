//! Versions while drives are lost, writers race and operations are cut off; what they leave behind.

use std::time::Duration;

use basalt_engine::units::SetIndex;
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::all_drives;

use super::{ENABLED, LENGTHS, SUSPENDED, all, delete, get, put, set, versioned};
use crate::s3::testing::world::{World, bytes, etag, refused};

/// Settles every key, frees orphans and what was relocated, as a server does in the background.
pub(super) fn tidy(world: &World) {
    let store = world.store.clone();
    let set = SetIndex(0);
    let drives = all_drives(store.mailbox().drive_count(set));
    world.simulation.run_for(Duration::from_secs(10));
    world.simulation.block_on(&world.runtime.clone(), async move {
        for _ in 0..3 {
            crate::s3::testing::world::settle_all(&store).await;
            let now = Duration::from_secs(48 * 3600);
            store.sweep_uploads(set, now).await.expect("swept");
            crate::s3::testing::world::free_orphans(&store).await;
            let mut after = None;
            loop {
                after = store.release_relocated(set, drives, after).await.expect("released").next;
                if after.is_none() {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_removed_version_gives_its_space_back() {
    for length in LENGTHS {
        let world = versioned();
        tidy(&world);
        let before = crate::s3::testing::world::payloads(&world);
        let ids: Vec<String> = (0..4).map(|_| put(&world, "key", &bytes(length))).collect();
        delete(&world, "key");
        tidy(&world);
        let full = crate::s3::testing::world::payloads(&world);
        for id in &ids {
            assert!(get(&world, &format!("key?versionId={id}")).body == bytes(length));
        }
        delete(&world, &format!("key?versionId={}", ids[1]));
        tidy(&world);
        let less = crate::s3::testing::world::payloads(&world);
        if length > 0 {
            assert_eq!(full - before, 4 * (full - less), "{length} bytes");
            assert!(full > less);
        }
        for version in all(&world) {
            let id = version.split(' ').nth(1).expect("an id").trim_end_matches(['*', '-']);
            delete(&world, &format!("key?versionId={id}"));
        }
        tidy(&world);
        assert_eq!(crate::s3::testing::world::payloads(&world), before, "{length} bytes");
        // The same for null versions that are replaced.
        set(&world, SUSPENDED);
        put(&world, "key", &bytes(length));
        set(&world, ENABLED);
        let id = put(&world, "key", &bytes(length));
        set(&world, SUSPENDED);
        put(&world, "key", &bytes(length));
        put(&world, "key", &bytes(length));
        tidy(&world);
        let two = crate::s3::testing::world::payloads(&world);
        assert_eq!(two - before, 2 * (full - less), "{length} bytes");
        delete(&world, &format!("key?versionId={id}"));
        delete(&world, "key?versionId=null");
        tidy(&world);
        assert_eq!(crate::s3::testing::world::payloads(&world), before, "{length} bytes");
        assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    }
}

#[test]
fn versions_survive_the_drives_that_may_be_lost() {
    let world = versioned();
    let mut versions = Vec::new();
    for length in LENGTHS {
        for _ in 0..3 {
            versions.push((length, put(&world, &length.to_string(), &bytes(length))));
        }
    }
    tidy(&world);
    world.lose(0);
    world.lose(3);
    for (length, id) in versions {
        let found = get(&world, &format!("{length}?versionId={id}"));
        assert!(found.status == 200 && found.body == bytes(length), "{length} bytes");
    }
}

#[test]
fn versions_that_are_written_while_a_drive_is_away_reach_it() {
    let world = versioned();
    let first = put(&world, "key", &bytes(100_000));
    world.simulation.run_for(Duration::from_secs(10));
    world.lose(1);
    let second = put(&world, "key", &bytes(100_001));
    let third = put(&world, "key", &bytes(100_002));
    let fourth = put(&world, "key", &bytes(5000));
    let fifth = put(&world, "key", &bytes(5001));
    world.recover();
    tidy(&world);
    world.lose(0);
    world.lose(2);
    let versions = [(first, 100_000), (second, 100_001), (third, 100_002), (fourth, 5000)];
    for (id, length) in versions.into_iter().chain([(fifth, 5001)]) {
        let found = get(&world, &format!("key?versionId={id}"));
        assert!(found.status == 200 && found.body == bytes(length), "{length}: {:?}", found.status);
    }
}

#[test]
fn writers_at_the_same_time_each_leave_a_version() {
    for seed in 0..20 {
        let world = World::new(seed);
        assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
        set(&world, ENABLED);
        let data: Vec<Vec<u8>> = (0..4u8).map(|fill| vec![fill; 5000]).collect();
        let requests: Vec<_> =
            data.iter().map(|data| ("PUT", "/bucket/key", &[][..], &data[..])).collect();
        let answers = world.ask_together(&requests);
        let mut ids = Vec::new();
        for (answer, data) in answers.iter().zip(&data) {
            assert_eq!(answer.status, 200, "{answer:?}");
            let id = answer.header("x-amz-version-id");
            assert!(get(&world, &format!("key?versionId={id}")).body == *data, "seed {seed}");
            ids.push(id.to_owned());
        }
        let listed = all(&world);
        assert_eq!(listed.len(), 4, "{listed:?}");
        assert!(ids.iter().all(|id| listed.iter().any(|one| one.contains(id.as_str()))));
        tidy(&world);
        assert_eq!(all(&world), listed);
        for (id, data) in ids.iter().zip(&data) {
            assert!(get(&world, &format!("key?versionId={id}")).body == *data, "seed {seed}");
        }
    }
}

#[test]
fn a_version_that_is_removed_while_others_write_stays_removed() {
    for seed in 0..30 {
        let world = World::new(seed);
        assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
        set(&world, ENABLED);
        let first = put(&world, "key", b"first");
        let second = put(&world, "key", &bytes(5000));
        let target = format!("/bucket/key?versionId={second}");
        let conditional = [("if-match", etag(&bytes(5000)))];
        let conditional: Vec<(&str, &str)> =
            conditional.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let is_conditional = seed % 2 == 0;
        let headers = if is_conditional { &conditional[..] } else { &[] };
        let answers = world.ask_together(&[
            ("DELETE", &target, &[], b""),
            ("PUT", "/bucket/key", headers, b"third"),
            ("DELETE", &target, &[], b""),
        ]);
        assert_eq!((answers[0].status, answers[2].status), (204, 204), "{answers:?}");
        let mut expected = vec![format!("key {first}")];
        match answers[1].status {
            200 => expected.insert(0, format!("key {}*", answers[1].header("x-amz-version-id"))),
            412 if is_conditional => expected[0].push('*'),
            status => panic!("{status} with seed {seed}"),
        }
        for _ in 0..2 {
            assert_eq!(all(&world), expected, "seed {seed}");
            refused(&get(&world, &format!("key?versionId={second}")), 404, "NoSuchVersion");
            let current = if expected.len() == 2 { &b"third"[..] } else { &b"first"[..] };
            assert_eq!(get(&world, "key").body, current);
            tidy(&world);
        }
    }
}

/// A request during which the drives are lost ends in one of two states, and everything goes on from there.
fn is_all_or_nothing(
    method: &'static str,
    target: impl Fn(&[String]) -> String,
    undone: impl Fn(&[String]) -> Vec<usize>,
    is_success: u16,
) {
    let (mut done, mut not_done) = (0, 0);
    for step in 0..24 {
        let world = versioned();
        let data = [bytes(5000), bytes(100_000), bytes(5001)];
        let ids: Vec<String> = data.iter().map(|data| put(&world, "key", data)).collect();
        let before: Vec<String> = all(&world);
        let after = Duration::from_micros(100 * step * step);
        let answer = world.ask_and_lose(method, &target(&ids), b"new", after);
        world.simulation.run_for(Duration::from_secs(20));
        let now = all(&world);
        if answer.status == is_success || now != before {
            done += 1;
            assert_ne!(now, before, "it was acknowledged");
            let kept: Vec<String> = now.iter().map(|one| one.replace('*', "")).collect();
            let expected: Vec<String> =
                undone(&ids).into_iter().map(|at| format!("key {}", ids[at])).collect();
            assert_eq!(kept[kept.len() - expected.len()..], expected, "after {after:?}");
        } else {
            not_done += 1;
        }
        for _ in 0..2 {
            assert_eq!(all(&world), now);
            let current = get(&world, "key");
            assert_eq!(now[0], format!("key {}*", current.header("x-amz-version-id")));
            for (id, data) in ids.iter().zip(&data) {
                if now.iter().any(|one| one.contains(id.as_str())) {
                    assert!(get(&world, &format!("key?versionId={id}")).body == *data);
                }
            }
            tidy(&world);
        }
        let last = put(&world, "key", b"last");
        assert_eq!(all(&world)[0], format!("key {last}*"));
        assert_eq!(all(&world).len(), now.len() + 1);
    }
    assert!(done > 0 && not_done > 0, "{done} done, {not_done} not");
}

#[test]
fn a_put_that_is_cut_off_leaves_all_versions_or_adds_one() {
    is_all_or_nothing("PUT", |_| "/bucket/key".to_owned(), |_| vec![2, 1, 0], 200);
}

#[test]
fn a_removal_that_is_cut_off_is_done_or_not() {
    let newest = |ids: &[String]| format!("/bucket/key?versionId={}", ids[2]);
    is_all_or_nothing("DELETE", newest, |_| vec![1, 0], 204);
    let oldest = |ids: &[String]| format!("/bucket/key?versionId={}", ids[0]);
    is_all_or_nothing("DELETE", oldest, |_| vec![2, 1], 204);
}
