//! The format on disk: a store that version 1 wrote opens for ever.
//!
//! `PINFOLD_WRITE_FIXTURE=1` writes the fixture anew, for a new format, whose
//! fixture gets a directory of its own. Old ones stay.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};

use common::{assert_gone, assert_held, assert_sound, blocks, hold, keys, open, reclaim};
use pinfold_blockstore::{Error, RootState, Store};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A store with a root in every state, and with a segment that was compacted.
fn write(dir: &Path) {
    let store = open(dir);
    let all = blocks(0..20, 60);
    hold(&store, b"gone", &all[15..]);
    store.release(b"gone").unwrap();
    reclaim(&store);
    hold(&store, b"released", &all[12..15]);
    hold(&store, b"held", &all[..8]);
    let mut walk = store.begin(b"fetching").unwrap();
    walk.reference(&keys(&all[4..12])).unwrap();
    store.put(&all[8..10]).unwrap();
    drop(walk);
    store.release(b"released").unwrap();
    store.sync().unwrap();
}

/// Copies the files of a store, without its index, which is derived.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("segments")).unwrap();
    std::fs::copy(from.join("VERSION"), to.join("VERSION")).unwrap();
    for entry in std::fs::read_dir(from.join("segments")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join("segments").join(entry.file_name())).unwrap();
    }
}

#[test]
fn version_1_opens() {
    if std::env::var_os("PINFOLD_WRITE_FIXTURE").is_some() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        copy(dir.path(), &fixture());
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let store = open(dir.path());
    let all = blocks(0..20, 60);
    let info = store.root(b"held").unwrap().unwrap();
    assert_eq!(
        (info.state, info.blocks, info.bytes, &info.meta[..]),
        (RootState::Held, 8, 480, &b"meta"[..])
    );
    let list: Result<Vec<_>, _> = store.list(b"held").unwrap().unwrap().collect();
    assert_eq!(list.unwrap(), keys(&all[..8]));
    assert_eq!(store.root(b"fetching").unwrap().unwrap().state, RootState::Fetching);
    assert_eq!(store.root(b"released").unwrap(), None);
    assert_eq!(store.root(b"gone").unwrap(), None);
    assert_sound(&store);
    reclaim(&store);
    assert_held(&store, &all[..10]);
    assert_gone(&store, &all[10..]);
    assert_sound(&store);
}

#[test]
fn a_newer_format_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let version = std::fs::read_to_string(dir.path().join("VERSION")).unwrap();
    std::fs::write(dir.path().join("VERSION"), version.replace("format 1", "format 2")).unwrap();
    let error = Store::open(dir.path(), common::options()).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }));
    assert!(error.to_string().contains("use the program's version that wrote it, or a newer one"), "{error}");
}

#[test]
fn segments_of_another_store_are_not_taken_for_ones_own() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(other.path()));
    copy(&fixture(), dir.path());
    std::fs::copy(other.path().join("VERSION"), dir.path().join("VERSION")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.roots().unwrap().count(), 0);
    assert_gone(&store, &blocks(0..20, 60));
}
