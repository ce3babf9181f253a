//! What a failing disk does to files: nothing damaged is served, what is lost
//! is named, and putting it again repairs it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{assert_held, assert_sound, blocks, flip, hold, keys, open, options, reclaim, segment_files};
use pinfold_blockstore::{Block, Difference, Multihash, RootState, Store};

/// Where `needle` lies in the segments.
fn find(dir: &Path, needle: &[u8]) -> (std::path::PathBuf, u64) {
    for file in segment_files(dir) {
        let bytes = std::fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            return (file, at as u64);
        }
    }
    panic!("not in any segment");
}

/// Flips a bit within a block's bytes.
fn damage(dir: &Path, block: &Block) {
    let (file, at) = find(dir, block.bytes());
    flip(&file, at + block.bytes().len() as u64 / 2);
}

#[test]
fn a_flipped_block_is_lost_until_it_is_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..10, 1000);
    let store = open(dir.path());
    hold(&store, b"root", &all);
    damage(dir.path(), &all[3]);

    assert_eq!(store.get(all[3].multihash()).unwrap(), None);
    assert!(!store.has(all[3].multihash()).unwrap());
    assert_eq!(store.lost_count(), 1);
    let is_lost = |store: &Store| {
        assert_eq!(store.lost(9).unwrap(), keys(&all[3..4]));
        assert_eq!(store.roots_with(&keys(&all[3..4])).unwrap(), [b"root".to_vec()]);
        let check = store.check().unwrap();
        assert_eq!(check.examples, [Difference::Missing { multihash: *all[3].multihash() }]);
    };
    is_lost(&store);
    reclaim(&store);
    drop(store);
    let store = open(dir.path());
    is_lost(&store);

    store.put(&all[3..4]).unwrap();
    assert!(store.lost(9).unwrap().is_empty());
    assert_held(&store, &all);
    assert_sound(&store);
    reclaim(&store);
    drop(store);
    assert_held(&open(dir.path()), &all);
}

#[test]
fn a_damaged_block_that_nobody_refers_to_is_just_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..2, 1000);
    store.put(&all).unwrap();
    damage(dir.path(), &all[0]);
    assert_eq!(store.get(all[0].multihash()).unwrap(), None);
    assert!(store.lost(9).unwrap().is_empty());
    assert_sound(&store);
}

#[test]
fn scrub_finds_what_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..50, 1000);
    hold(&store, b"root", &all);
    let done = store.scrub(u64::MAX, || false).unwrap();
    assert_eq!((done.blocks, done.lost, done.finished), (50, 0, true));
    damage(dir.path(), &all[7]);
    damage(dir.path(), &all[40]);
    assert_eq!(store.scrub(u64::MAX, || false).unwrap().lost, 2);
    let mut lost = store.lost(9).unwrap();
    lost.sort_by_key(Multihash::to_bytes);
    let mut expected = vec![*all[7].multihash(), *all[40].multihash()];
    expected.sort_by_key(Multihash::to_bytes);
    assert_eq!(lost, expected);
    assert!(!store.scrub(u64::MAX, || true).unwrap().finished);
}

#[test]
fn scrub_gets_everywhere_wherever_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // More than are looked up at a time.
    let all = blocks(0..600, 100);
    hold(&store, b"root", &all);
    let starts = [all[3].multihash().to_bytes(), vec![0x12, 0x20, 0x80], vec![0xff; 8], Vec::new()];
    for start in &starts {
        let done = store.scrub_from(start, u64::MAX, || false).unwrap();
        assert_eq!((done.blocks, done.finished), (600, true), "{start:?}");
    }
    // Broken off early, it finds what comes first from there.
    let mut sorted: Vec<_> = all.iter().map(|block| block.multihash().to_bytes()).collect();
    sorted.sort();
    let (before, broken) = (&sorted[399], &sorted[400]);
    let broken = all.iter().find(|block| block.multihash().to_bytes() == *broken).unwrap();
    damage(dir.path(), broken);
    let looks = std::cell::Cell::new(0);
    let few = || looks.replace(looks.get() + 1) > 20;
    assert!(!store.scrub_from(before, u64::MAX, few).unwrap().finished);
    assert_eq!(store.lost(9).unwrap(), vec![*broken.multihash()]);
}

#[test]
fn scrub_recomputes_the_multihash() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..2, 100);
    // Its checksum is right, its multihash was never computed.
    let wrong = Block::computed(*all[0].multihash(), all[1].bytes().clone()).unwrap();
    hold(&store, b"root", &[wrong]);
    assert_eq!(store.scrub(u64::MAX, || false).unwrap().lost, 1);
    assert_eq!(store.lost(9).unwrap(), keys(&all[..1]));
}

#[test]
fn scrub_keeps_to_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    hold(&store, b"root", &blocks(0..20, 10_000));
    let begun = std::time::Instant::now();
    store.scrub(1_000_000, || false).unwrap();
    assert!(begun.elapsed().as_millis() >= 190, "{:?}", begun.elapsed());
}

#[test]
fn a_root_with_a_damaged_list_is_to_be_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..2500, 20);
    let store = open(dir.path());
    hold(&store, b"root", &all);
    hold(&store, b"other", &all[..10]);
    // The list's second part: two multihashes that follow each other there only.
    let mut needle = all[1500].multihash().to_bytes();
    needle.push(34);
    needle.extend_from_slice(&all[1501].multihash().to_bytes());
    let (file, at) = find(dir.path(), &needle);
    flip(&file, at + 5);
    assert!(store.list(b"root").unwrap().unwrap().any(|item| item.is_err()));

    assert_eq!(store.scrub(u64::MAX, || false).unwrap().lost, 1);
    assert_eq!(store.root(b"root").unwrap().unwrap().state, RootState::Fetching);
    assert_eq!(store.root(b"other").unwrap().unwrap().state, RootState::Held);
    reclaim(&store);
    assert_held(&store, &all);
    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&keys(&all)).unwrap();
    walk.complete(b"").unwrap();
    reclaim(&store);
    assert_held(&store, &all);
    drop(walk);
    drop(store);
    // What the damaged part referred to twice is counted anew.
    let store = open(dir.path());
    assert_held(&store, &all);
    assert_sound(&store);
    store.release(b"root").unwrap();
    assert_eq!(reclaim(&store).blocks, 2490);
}

/// Opens a store of two roots whose segments `harm` has changed, with its
/// index and without.
fn check_opening(harm: impl Fn(&Path, &[Block]), expect: impl Fn(&Store, &[Block])) {
    for keeps_index in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let all = blocks(0..300, 10_000);
        let store = open(dir.path());
        hold(&store, b"first", &all[..150]);
        hold(&store, b"second", &all[150..]);
        hold(&store, b"third", &all[299..]);
        drop(store);
        harm(dir.path(), &all);
        if !keeps_index {
            std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let store = open(dir.path());
        expect(&store, &all);
        // Whatever was lost can be put again.
        store.scrub(u64::MAX, || false).unwrap();
        store.put(&all).unwrap();
        for root in [b"first".as_slice(), b"second"] {
            if store.root(root).unwrap().is_none_or(|info| info.state == RootState::Fetching) {
                let mut walk = store.begin(root).unwrap();
                let range = if root == b"first" { 0..150 } else { 150..300 };
                walk.reference(&keys(&all[range])).unwrap();
                walk.complete(b"meta").unwrap();
            }
        }
        assert_held(&store, &all);
        reclaim(&store);
        assert_held(&store, &all);
        drop(store);
        let store = open(dir.path());
        assert_held(&store, &all);
        assert_sound(&store);
    }
}

#[test]
fn a_hole_in_a_segment_costs_what_was_in_it() {
    check_opening(
        |dir, all| {
            // Heads and payloads of some blocks, in the first of three segments.
            let (file, at) = find(dir, all[20].bytes());
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[at as usize..at as usize + 35_000].fill(0xAA);
            std::fs::write(&file, bytes).unwrap();
        },
        |store, all| {
            assert_held(store, &all[..20]);
            assert_held(store, &all[24..]);
            for block in &all[20..24] {
                assert_eq!(store.get(block.multihash()).unwrap(), None);
            }
            assert_eq!(store.lost(9).unwrap().len(), 4);
        },
    );
}

#[test]
fn a_hole_in_what_was_durable_is_not_taken_for_a_torn_end() {
    check_opening(
        |dir, all| {
            // In the last segment, before the state of the second root; the
            // third one's records say that all of that was durable.
            let file = segment_files(dir).pop().unwrap();
            let bytes = std::fs::read(&file).unwrap();
            let lies_here = |block: &&Block| bytes.windows(500).any(|window| window == &block.bytes()[..500]);
            let victim = all.iter().rev().take(60).find(lies_here).unwrap();
            let (file, at) = find(dir, victim.bytes());
            flip(&file, at - 60);
        },
        |store, all| {
            assert_eq!(store.root(b"second").unwrap().unwrap().state, RootState::Held);
            assert_eq!(store.root(b"third").unwrap().unwrap().state, RootState::Held);
            let held = all.iter().filter(|block| store.get(block.multihash()).unwrap().is_some());
            assert_eq!(held.count(), 299);
            assert_eq!(store.lost(9).unwrap().len(), 1);
        },
    );
}

#[test]
fn a_truncated_segment_costs_what_was_cut_off() {
    check_opening(
        |dir, _| {
            let file = std::fs::File::options().write(true).open(&segment_files(dir)[0]).unwrap();
            file.set_len(500_000).unwrap();
        },
        |store, all| {
            assert_held(store, &all[..49]);
            let served = all.iter().filter(|block| store.get(block.multihash()).unwrap().is_some()).count();
            assert!((200..300).contains(&served), "{served}");
        },
    );
}

#[test]
fn a_segment_that_vanished_costs_what_was_in_it() {
    check_opening(
        |dir, _| std::fs::remove_file(&segment_files(dir)[1]).unwrap(),
        |store, all| {
            let served = all.iter().filter(|block| store.get(block.multihash()).unwrap().is_some()).count();
            assert!((150..250).contains(&served), "{served}");
        },
    );
}

#[test]
fn compaction_gives_up_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..300, 10_000);
    hold(&store, b"gone", &all[..100]);
    hold(&store, b"kept", &all[50..]);
    damage(dir.path(), &all[60]);
    let (file, at) = find(dir.path(), all[70].bytes());
    flip(&file, at - 60);
    store.release(b"gone").unwrap();
    let done = reclaim(&store);
    assert_eq!(done.blocks, 50);
    assert!(done.segments > 0);
    let lost = store.lost(9).unwrap();
    assert_eq!(lost.len(), 2);
    assert!(lost.contains(all[60].multihash()) && lost.contains(all[70].multihash()));
    store.put(&[all[60].clone(), all[70].clone()]).unwrap();
    assert_held(&store, &all[50..]);
    assert_sound(&store);
}

#[test]
fn a_broken_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..100, 1000);
    let store = open(dir.path());
    hold(&store, b"root", &all);
    drop(store);
    let index = dir.path().join("index");
    for breakage in 0..4 {
        match breakage {
            0 => std::fs::write(index.join("current"), b"nonsense").unwrap(),
            1 => std::fs::remove_dir_all(index.join("tables")).unwrap(),
            2 => std::fs::write(dir.path().join("index.rebuild"), b"").unwrap(),
            _ => {
                // Another store's.
                let other = tempfile::tempdir().unwrap();
                drop(open(other.path()));
                std::fs::remove_dir_all(&index).unwrap();
                std::fs::rename(other.path().join("index"), &index).unwrap();
            }
        }
        let store = open(dir.path());
        assert_held(&store, &all);
        assert_sound(&store);
        assert!(!dir.path().join("index.rebuild").exists());
    }
}

#[test]
fn a_flipped_index_is_noticed_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..2000, 50);
    let store = open(dir.path());
    hold(&store, b"root", &all);
    drop(store);
    for entry in std::fs::read_dir(dir.path().join("index/tables")).unwrap() {
        let path = entry.unwrap().path();
        flip(&path, std::fs::metadata(&path).unwrap().len() / 3);
    }
    // It opens, or is rebuilt at once; where a read meets the damage, the
    // next opening rebuilds it. No wrong answer in between.
    let store = Store::open(dir.path(), options()).unwrap();
    let noticed = all.iter().any(|block| match store.get(block.multihash()) {
        Ok(bytes) => {
            assert_eq!(bytes.as_ref(), Some(block.bytes()));
            false
        }
        Err(_) => true,
    });
    drop(store);
    assert_eq!(noticed, dir.path().join("index.rebuild").exists());
    let store = open(dir.path());
    assert_held(&store, &all);
    assert_sound(&store);
}
