//! Roots, walks, references, reclaim.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::{assert_gone, assert_held, assert_sound, block, blocks, hold, keys, open, reclaim};
use multihash_codetable::{Code, MultihashDigest as _};
use pinfold_blockstore::{Block, Error, Multihash, RootState, Store};

#[test]
fn a_root_is_held_across_openings_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..3000, 100);
    let store = open(dir.path());
    hold(&store, b"root", &all);
    let expect = |store: &Store| {
        let info = store.root(b"root").unwrap().unwrap();
        assert_eq!((info.state, info.blocks, info.bytes), (RootState::Held, 3000, 300_000));
        assert_eq!(info.meta, Bytes::from_static(b"meta"));
        let list: Result<Vec<_>, _> = store.list(b"root").unwrap().unwrap().collect();
        assert_eq!(list.unwrap(), keys(&all));
        assert_eq!(
            store.roots().unwrap().map(Result::unwrap).collect::<Vec<_>>(),
            [(b"root".to_vec(), info)]
        );
        assert_held(store, &all);
        assert_sound(store);
    };
    expect(&store);
    reclaim(&store);
    expect(&store);
    drop(store);
    let store = open(dir.path());
    expect(&store);

    assert!(store.release(b"root").unwrap());
    assert!(!store.release(b"root").unwrap());
    assert_eq!(store.root(b"root").unwrap(), None);
    assert_eq!(store.roots().unwrap().count(), 0);
    assert!(store.list(b"root").unwrap().is_none());
    assert_held(&store, &all);
    assert_sound(&store);
    assert_eq!(reclaim(&store).blocks, 3000);
    assert_gone(&store, &all);
    assert_sound(&store);
    assert_eq!(store.usage().blocks, 0);
    assert_eq!(store.usage().block_bytes, 0);
}

#[test]
fn shared_blocks_stay_for_the_other_root() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..30, 1000);
    hold(&store, b"a", &all[..20]);
    hold(&store, b"b", &all[10..]);
    assert_eq!(store.usage().blocks, 30);
    store.release(b"a").unwrap();
    assert_eq!(reclaim(&store).blocks, 10);
    assert_gone(&store, &all[..10]);
    assert_held(&store, &all[10..]);
    assert_sound(&store);
}

#[test]
fn a_walk_protects_what_another_root_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..10, 1000);
    hold(&store, b"a", &all);
    let mut walk = store.begin(b"b").unwrap();
    // The reference comes first; then the block is found held, and skipped.
    walk.reference(&keys(&all[..5])).unwrap();
    store.release(b"a").unwrap();
    assert_eq!(reclaim(&store).blocks, 5);
    assert_held(&store, &all[..5]);
    assert_gone(&store, &all[5..]);
    walk.complete(b"").unwrap();
    assert_eq!(reclaim(&store).blocks, 0);
    assert_held(&store, &all[..5]);
    assert_sound(&store);
}

#[test]
fn blocks_of_a_failed_fetch_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..2000, 50);
    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&keys(&all)).unwrap();
    store.put(&all[..1500]).unwrap();
    assert_eq!(reclaim(&store).blocks, 0);
    let incomplete = walk.complete(b"").unwrap_err();
    let Error::Incomplete { missing: 500, total: 2000, first } = incomplete else {
        panic!("{incomplete}");
    };
    assert_eq!(first, *all[1500].multihash());
    assert_eq!(store.root(b"root").unwrap().unwrap().state, RootState::Fetching);
    assert_sound(&store);
    walk.abandon().unwrap();
    assert_eq!(store.root(b"root").unwrap(), None);
    assert_eq!(reclaim(&store).blocks, 1500);
    assert_sound(&store);
    assert_eq!(store.usage().blocks, 0);
}

#[test]
fn an_interrupted_walk_resumes_without_exposing_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let all = blocks(0..2000, 50);
    let store = open(dir.path());
    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&keys(&all[..1700])).unwrap();
    store.put(&all[..1700]).unwrap();
    drop(walk);
    drop(store);
    for _ in 0..3 {
        // Each time it is interrupted again, sooner.
        let store = open(dir.path());
        assert_eq!(store.root(b"root").unwrap().unwrap().state, RootState::Fetching);
        let mut walk = store.begin(b"root").unwrap();
        walk.reference(&keys(&all[..10])).unwrap();
        assert_eq!(reclaim(&store).blocks, 0);
        assert_held(&store, &all[..1700]);
        drop(walk);
        assert_sound(&store);
    }
    let store = open(dir.path());
    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&keys(&all)).unwrap();
    assert_eq!(walk.references(), 2000);
    store.put(&all).unwrap();
    assert_eq!(walk.complete(b"").unwrap().blocks, 2000);
    reclaim(&store);
    assert_held(&store, &all);
    assert_sound(&store);
    store.release(b"root").unwrap();
    assert_eq!(reclaim(&store).blocks, 2000);
    assert_sound(&store);
}

#[test]
fn a_held_root_keeps_its_list_while_it_is_walked_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..20, 500);
    hold(&store, b"root", &all[..10]);

    let mut walk = store.begin(b"root").unwrap();
    assert_eq!(store.root(b"root").unwrap().unwrap().state, RootState::Held);
    walk.reference(&keys(&all[10..12])).unwrap();
    walk.abandon().unwrap();
    reclaim(&store);
    assert_held(&store, &all[..10]);
    assert_eq!(store.root(b"root").unwrap().unwrap().blocks, 10);

    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&keys(&all[5..])).unwrap();
    store.put(&all[5..]).unwrap();
    reclaim(&store);
    assert_held(&store, &all);
    walk.complete(b"new").unwrap();
    assert_eq!(reclaim(&store).blocks, 5);
    assert_held(&store, &all[5..]);
    assert_gone(&store, &all[..5]);
    assert_sound(&store);
}

#[test]
fn a_root_has_one_walk_and_release_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..5, 100);
    let mut walk = store.begin(b"root").unwrap();
    assert!(matches!(store.begin(b"root"), Err(Error::WalkInProgress)));
    walk.reference(&keys(&all)).unwrap();
    store.put(&all).unwrap();
    assert!(store.release(b"root").unwrap());
    assert!(matches!(walk.complete(b""), Err(Error::Released)));
    assert!(matches!(store.begin(b"root"), Err(Error::WalkInProgress)));
    drop(walk);
    assert_eq!(store.root(b"root").unwrap(), None);
    assert_eq!(reclaim(&store).blocks, 5);
    store.begin(b"root").unwrap().abandon().unwrap();
    assert_sound(&store);
}

#[test]
fn the_empty_block_and_identity_are_always_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let empty = Block::verify(Code::Sha2_256.digest(b""), Bytes::new()).unwrap();
    let inline = Multihash::wrap(0, b"inline").unwrap();
    assert_held(&store, std::slice::from_ref(&empty));
    assert_eq!(store.get(&inline).unwrap(), Some(Bytes::from_static(b"inline")));
    store.put(&[empty.clone(), Block::verify(inline, Bytes::from_static(b"inline")).unwrap()]).unwrap();
    assert_eq!(store.usage().blocks, 0);
    let one = block(1, 10);
    store.put(std::slice::from_ref(&one)).unwrap();
    let mut walk = store.begin(b"root").unwrap();
    walk.reference(&[*one.multihash(), *empty.multihash()]).unwrap();
    let info = walk.complete(b"").unwrap();
    assert_eq!((info.blocks, info.bytes), (2, 10));
    assert_sound(&store);
    store.release(b"root").unwrap();
    assert_eq!(reclaim(&store).blocks, 1);
    assert_sound(&store);
}

#[test]
fn an_unreferenced_block_stays_for_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let options = pinfold_blockstore::Options {
        reclaim_delay: std::time::Duration::from_secs(3600),
        ..common::options()
    };
    let store = Store::open(dir.path(), options).unwrap();
    let all = blocks(0..10, 100);
    store.put(&all).unwrap();
    hold(&store, b"root", &all[5..]);
    store.release(b"root").unwrap();
    assert_eq!(reclaim(&store).blocks, 0);
    assert_held(&store, &all);
    drop(store);
    let store = open(dir.path());
    assert_eq!(reclaim(&store).blocks, 10);
    assert_sound(&store);
}

#[test]
fn keys_and_meta_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(store.begin(b""), Err(Error::BadRootKey { len: 0 })));
    assert!(matches!(store.begin(&[0; 257]), Err(Error::BadRootKey { len: 257 })));
    let mut walk = store.begin(&[0; 256]).unwrap();
    assert!(matches!(walk.complete(&[0; (64 << 10) + 1]), Err(Error::MetaTooLong { .. })));
    walk.complete(&[7; 64 << 10]).unwrap();
    assert_eq!(store.root(&[0; 256]).unwrap().unwrap().meta.len(), 64 << 10);
}

#[test]
fn roots_with_a_block_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..6, 100);
    hold(&store, b"a", &all[..4]);
    hold(&store, b"b", &all[2..]);
    let named = |range: std::ops::Range<usize>| store.roots_with(&keys(&all[range])).unwrap();
    assert_eq!(named(0..1), [b"a".to_vec()]);
    assert_eq!(named(2..3), [b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(named(5..6), [b"b".to_vec()]);
    assert!(store.roots_with(&keys(&blocks(9..10, 100))).unwrap().is_empty());
}

#[test]
fn space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for root in 0..40u64 {
        hold(&store, &root.to_le_bytes(), &blocks(root * 1000..root * 1000 + 50, 2048));
    }
    let full = store.usage();
    for root in (0..40u64).step_by(2) {
        store.release(&root.to_le_bytes()).unwrap();
    }
    let done = reclaim(&store);
    assert_eq!(done.blocks, 1000);
    assert!(done.segments > 0);
    let usage = store.usage();
    assert_eq!(usage.block_bytes, full.block_bytes / 2);
    let ratio = usage.disk_bytes as f64 / usage.block_bytes as f64;
    assert!(ratio < 1.20, "{ratio}");
    assert_sound(&store);
    drop(store);
    let store = open(dir.path());
    for root in (1..40u64).step_by(2) {
        assert_held(&store, &blocks(root * 1000..root * 1000 + 50, 2048));
    }
    assert_sound(&store);
    // Nothing is left of released roots, and a second pass finds no work.
    assert_eq!(reclaim(&store).segments, 0);
}

#[test]
fn a_released_root_stays_released_where_the_index_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = pinfold_blockstore::Options { segment_bytes: 12_000, ..common::options() };
    let open = || Store::open(dir.path(), options.clone()).unwrap();
    let store = open();
    // Its state is in a segment that stays, because little of that is dead;
    // its release in one that is compacted, because most of that is.
    hold(&store, b"kept", &blocks(0..10, 1000));
    hold(&store, b"released", &blocks(10..11, 8));
    hold(&store, b"too", &blocks(20..30, 1000));
    store.release(b"released").unwrap();
    store.release(b"too").unwrap();
    hold(&store, b"more", &blocks(30..60, 1000));
    assert!(reclaim(&store).segments > 0);
    assert!(dir.path().join("segments/00000001.seg").exists());
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open();
    let roots: Vec<_> = store.roots().unwrap().map(|root| root.unwrap().0).collect();
    assert_eq!(roots, [b"kept".to_vec(), b"more".to_vec()]);
    assert_sound(&store);
}

#[test]
fn blocks_that_came_ahead_of_a_walk_stay_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = blocks(0..3, 1000);
    let walk = store.begin(b"root").unwrap();
    store.put(&all).unwrap();
    assert_eq!(reclaim(&store).blocks, 0);
    assert_held(&store, &all);
    drop(walk);
    assert_eq!(reclaim(&store).blocks, 3);
}
