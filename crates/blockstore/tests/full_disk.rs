//! A disk so full that a segment cannot be copied before it is deleted.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::sim::{Faults, SimIo};
use common::{assert_gone, assert_held, assert_sound, blocks, hold, options, reclaim};
use pinfold_blockstore::{Block, Error, Options, Store};

/// Room for one part of a segment and little more.
const RESERVE: u64 = 800_000;

/// Every other block of one long segment, of which half is to go.
struct Mixed {
    dir: tempfile::TempDir,
    io: SimIo,
    gone: Vec<Block>,
    kept: Vec<Block>,
}

impl Mixed {
    /// A store on a disk that others have filled since, and whose `gone` was
    /// released.
    fn new() -> (Self, Store) {
        let all = blocks(0..100, 40_000);
        let (gone, kept) = all.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
        let mixed = Self { dir: tempfile::tempdir().unwrap(), io: SimIo::new(1), gone, kept };
        let store = mixed.open();
        // The segment begins with its state, and ends with its release.
        hold(&store, b"early", &all[..1]);
        store.put(&all).unwrap();
        hold(&store, b"gone", &mixed.gone);
        hold(&store, b"kept", &mixed.kept);
        assert_eq!(mixed.segments(), 1);
        mixed.io.set_faults(Faults { space: Some(mixed.used()), ..Faults::default() });
        store.release(b"gone").unwrap();
        store.release(b"early").unwrap();
        (mixed, store)
    }

    fn open(&self) -> Store {
        let options = Options { segment_bytes: 64 << 20, reserve_bytes: RESERVE, ..options() };
        Store::open_on(Arc::new(self.io.clone()), self.dir.path(), options).unwrap()
    }

    fn used(&self) -> u64 {
        self.io.files().iter().map(|(_, len)| *len as u64).sum()
    }

    fn stored(&self) -> u64 {
        let files = self.io.files();
        files.iter().filter(|(name, _)| name != "reserve").map(|(_, len)| *len as u64).sum()
    }

    fn segments(&self) -> usize {
        self.io.files().iter().filter(|(name, len)| name.ends_with(".seg") && *len > 0).count()
    }

    fn assert_whole(&self, store: &Store) {
        assert_held(store, &self.kept);
        assert_sound(store);
    }
}

#[test]
fn a_segment_is_given_back_that_has_no_room_beside_itself() {
    let (mixed, store) = Mixed::new();
    let full = mixed.stored();
    let done = reclaim(&store);
    assert_eq!((done.blocks, done.segments), (50, 1));
    assert!(mixed.stored() < full * 6 / 10, "{} of {full} bytes", mixed.stored());
    mixed.assert_whole(&store);
    assert_gone(&store, &mixed.gone);
    // There is room again, and the reserve is made.
    store.put(&mixed.gone[..10]).unwrap();
    assert!(mixed.io.files().contains(&("reserve".to_owned(), RESERVE as usize)));
    drop(store);
    mixed.assert_whole(&mixed.open());
    // The segments alone say the same.
    std::fs::remove_dir_all(mixed.dir.path().join("index")).unwrap();
    mixed.assert_whole(&mixed.open());
}

#[test]
fn a_reserve_in_use_already_is_enough() {
    let (mixed, store) = Mixed::new();
    let error = store.put(&blocks(200..201, 40_000)).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(mixed.io.files().iter().all(|(name, _)| name != "reserve"));
    assert_eq!(reclaim(&store).segments, 1);
    mixed.assert_whole(&store);
}

#[test]
fn told_to_stop_it_goes_on_later() {
    let (mixed, store) = Mixed::new();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) > 4;
    assert_eq!(store.reclaim(stop).unwrap().segments, 0);
    mixed.assert_whole(&store);
    drop(store);
    // What was released stays so, for those who have the segments alone.
    std::fs::remove_dir_all(mixed.dir.path().join("index")).unwrap();
    let store = mixed.open();
    let roots: Vec<_> = store.roots().unwrap().map(|root| root.unwrap().0).collect();
    assert_eq!(roots, [b"kept".to_vec()]);
    mixed.assert_whole(&store);
    reclaim(&store);
    mixed.assert_whole(&store);
    assert_gone(&store, &mixed.gone);
}

#[test]
fn a_power_loss_at_any_step_loses_nothing() {
    let mut ended = false;
    for operations in (0..).step_by(31) {
        let (mixed, store) = Mixed::new();
        mixed.io.fail_after(operations);
        ended = store.reclaim(|| false).is_ok();
        mixed.io.halt();
        drop(store);
        mixed.io.restart_machine();
        let store = mixed.open();
        mixed.assert_whole(&store);
        reclaim(&store);
        mixed.assert_whole(&store);
        assert_gone(&store, &mixed.gone);
        if ended {
            break;
        }
    }
    assert!(ended);
}

/// A small disk in memory, index and all.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this user must not mount one.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        // Past the capture of a test's output.
        let _ = writeln!(std::io::stderr(), "NOT TESTED, for want of Linux and root: a full disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Fills a real disk with two roots whose blocks of `len` bytes lie between
/// each other, and releases one.
fn fill_and_release(len: usize) {
    let Some(disk) = Disk::mount("40m") else { return };
    let options = Options { reclaim_delay: std::time::Duration::ZERO, ..Options::default() };
    let store = Store::open(disk.path(), options.clone()).unwrap();
    let (mut all, mut number) = (Vec::new(), 0);
    let refused = loop {
        let batch = blocks(number..number + 8, len);
        match store.put(&batch) {
            Ok(()) => all.extend(batch),
            Err(error) => break error,
        }
        number += 8;
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    let (gone, kept): (Vec<Block>, Vec<Block>) =
        all.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
    hold(&store, b"gone", &gone);
    hold(&store, b"kept", &kept);
    let full = store.usage().disk_bytes;
    store.release(b"gone").unwrap();
    let done = reclaim(&store);
    assert_eq!(done.blocks, gone.len() as u64);
    let left = store.usage().disk_bytes;
    assert!(left < full * 6 / 10, "{left} of {full} bytes");
    store.put(&gone[..gone.len() / 4]).unwrap();
    assert_held(&store, &kept);
    assert_sound(&store);
    drop(store);
    let store = Store::open(disk.path(), options).unwrap();
    assert_held(&store, &kept);
    assert_sound(&store);
}

#[test]
fn as_root_a_real_disk_of_large_blocks_gives_back() {
    fill_and_release(256 << 10);
}

#[test]
fn as_root_a_real_disk_of_small_blocks_gives_back() {
    fill_and_release(4 << 10);
}

/// Fills what is free, save for `left` bytes.
fn fill_up(disk: &Path, left: u64) {
    let mut file = std::fs::File::create(disk.join("others")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len().saturating_sub(left)).unwrap();
}

#[test]
fn as_root_an_index_without_room_leaves_no_unfinished_files() {
    let Some(disk) = Disk::mount("16m") else { return };
    let tables = || {
        let entries = std::fs::read_dir(disk.path().join("index/tables")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let store = Store::open(disk.path(), options()).unwrap();
    // So many that what the index has in memory is longer than what is left.
    hold(&store, b"gone", &blocks(0..4000, 8));
    hold(&store, b"kept", &blocks(4000..4020, 8));
    store.release(b"gone").unwrap();
    fill_up(disk.path(), 64 << 10);
    let before = tables();
    for _ in 0..3 {
        let error = store.reclaim(|| false).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(tables(), before);
    }
    std::fs::remove_file(disk.path().join("others")).unwrap();
    assert_eq!(reclaim(&store).segments, 1);
    assert_held(&store, &blocks(4000..4020, 8));
    assert_sound(&store);
}
