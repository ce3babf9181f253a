//! What a store says that it occupies, and what lies on the disk.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};

use common::{assert_held, assert_sound, blocks, hold, options, reclaim, segment_files};
use pinfold_blockstore::{Options, Store};

fn bytes(files: impl Iterator<Item = PathBuf>) -> u64 {
    files.map(|path| path.metadata().unwrap().len()).sum()
}

fn tables(dir: &Path) -> u64 {
    bytes(std::fs::read_dir(dir.join("index/tables")).unwrap().map(|entry| entry.unwrap().path()))
}

#[test]
fn an_index_that_was_rewritten_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { index_memory_bytes: 64 << 10, ..options() }).unwrap();
    let all = blocks(0..4000, 64);
    hold(&store, b"gone", &all[..2000]);
    hold(&store, b"kept", &all[2000..]);
    let before = tables(dir.path());
    store.release(b"gone").unwrap();
    assert_eq!(reclaim(&store).blocks, 2000);
    let told = store.usage().disk_bytes - bytes(segment_files(dir.path()).into_iter());
    let after = tables(dir.path());
    // What is told leaves out the tables' own descriptions, a kilobyte or two.
    assert!(after < told + told / 4, "{after} bytes of which {told} are told, {before} before");
    assert!(after < before, "{after} of {before} bytes");
    assert_held(&store, &all[2000..]);
    assert_sound(&store);
}

#[test]
fn an_index_that_was_written_over_and_over_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { index_memory_bytes: 16 << 10, ..options() }).unwrap();
    let all = blocks(0..500, 64);
    hold(&store, b"kept", &all);
    for _ in 0..20 {
        // Each time every entry changes twice.
        hold(&store, b"again", &all);
        store.release(b"again").unwrap();
        store.reclaim(|| false).unwrap();
    }
    let named = store.usage().disk_bytes - bytes(segment_files(dir.path()).into_iter());
    let there = tables(dir.path());
    assert!(there < named + named / 4, "{there} bytes of which {named} are named");
    let versions = std::fs::read_dir(dir.path().join("index")).unwrap();
    let versions =
        versions.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('v'));
    assert!(versions.count() <= 2, "older versions of the index are described");
    assert_held(&store, &all);
    assert_sound(&store);
}
