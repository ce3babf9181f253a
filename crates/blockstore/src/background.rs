//! The store's thread: it syncs while others write.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::inner::Inner;
use crate::meter;

/// The longest that something stays unsynced, where nobody asks for more.
const MAX_AGE: Duration = Duration::from_secs(5);

/// How the thread is told what to do.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something is unsynced.
    pending: bool,
    /// Enough is unsynced to begin at once.
    due: bool,
    stopped: bool,
}

impl Signal {
    /// Something was written, and perhaps so much that it is `due` for a sync.
    pub(crate) fn written(&self, due: bool) {
        let mut state = self.state.lock();
        if !state.pending || (due && !state.due) {
            state.pending = true;
            state.due |= due;
            self.changed.notify_one();
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Waits until something is due, or has been pending for long; false once
    /// the store closes. Sleeps without end while nothing is unsynced.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.due && !state.stopped {
            if !state.pending {
                self.changed.wait(&mut state);
            } else if self.changed.wait_for(&mut state, MAX_AGE).timed_out() {
                break;
            }
        }
        state.pending = false;
        state.due = false;
        !state.stopped
    }
}

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Background {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(inner: &Arc<Inner>) -> std::io::Result<Self> {
        let worker = Arc::clone(inner);
        let thread = std::thread::Builder::new().name("blockstore".into()).spawn(move || run(&worker))?;
        Ok(Self { inner: Arc::clone(inner), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.inner.signal.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn run(inner: &Inner) {
    while inner.signal.wait() {
        if let Err(error) = inner.sync_all().and_then(|()| inner.catch_up()) {
            // Whoever writes or completes next is told; retrying at once would
            // only spin.
            tracing::error!(%error, "the background sync of the block store failed");
        }
        meter::gauge(&inner.usage());
    }
}
