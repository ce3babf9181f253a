//! A recount of a slow disk: writers go on while it reads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::sim::SimIo;
use common::watched::Watched;
use common::{assert_held, assert_sound, blocks, hold, options};
use pinfold_blockstore::{Options, Store};

/// A hang is told as such after this.
const HANG: Duration = Duration::from_secs(60);

/// Stops one read until it is told to go on.
#[derive(Debug, Default)]
struct Gate(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl Gate {
    /// The next read says so, and waits. A reader that nobody lets on goes on
    /// by itself at last, so that a test which fails also ends.
    fn close(&self) -> (Receiver<()>, Sender<()>) {
        let ((entered, is_in), (go_on, may_go)) = (channel(), channel());
        *self.0.lock().unwrap() = Some((entered, may_go));
        (is_in, go_on)
    }

    fn pass(&self) {
        let closed = self.0.lock().unwrap().take();
        if let Some((entered, may_go)) = closed {
            entered.send(()).unwrap();
            let _ = may_go.recv_timeout(HANG);
        }
    }
}

#[test]
fn writers_get_through_while_a_check_reads() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let before = Arc::clone(&gate);
    let io = Watched::new(SimIo::new(1), move |_, _, _| {
        before.pass();
        Ok(())
    });
    // The index goes to disk, and is merged there, while the check looks.
    let options = Options { segment_bytes: 64 << 10, index_memory_bytes: 4 << 10, ..options() };
    let store = Store::open_on(Arc::new(io), dir.path(), options).unwrap();
    let all = blocks(0..400, 500);
    hold(&store, b"before", &all[..200]);
    hold(&store, b"gone", &all[150..210]);
    let (is_in, go_on) = gate.close();
    std::thread::scope(|scope| {
        let check = scope.spawn(|| store.check().unwrap());
        is_in.recv().unwrap();
        let writer = scope.spawn(|| {
            hold(&store, b"after", &all[100..]);
            store.release(b"gone").unwrap();
            store.release(b"before").unwrap();
            store.sync().unwrap();
        });
        let begun = std::time::Instant::now();
        while !writer.is_finished() && begun.elapsed() < HANG / 2 {
            std::thread::yield_now();
        }
        let is_through = writer.is_finished();
        go_on.send(()).unwrap();
        assert!(is_through, "writers waited for the check");
        let check = check.join().unwrap();
        // What it counted is the state before them.
        assert_eq!(check.differences, 0, "{:?}", check.examples);
        assert_eq!((check.roots, check.blocks), (2, 210));
    });
    let check = assert_sound(&store);
    assert_eq!((check.roots, check.blocks), (1, 400));
    assert_held(&store, &all[100..]);
}
