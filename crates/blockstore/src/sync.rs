//! Making the log durable: concurrent callers share one sync.

use parking_lot::{Condvar, Mutex};

use crate::Error;

/// How far the log is durable, and whether somebody is at it.
#[derive(Debug, Default)]
pub(crate) struct SyncPoint {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In bytes appended since the store was opened.
    synced: u64,
    /// The open segment and the length up to which it is durable.
    segment: u32,
    offset: u64,
    running: bool,
    poisoned: Option<String>,
}

/// What a sync covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    pub(crate) written: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl SyncPoint {
    /// The log is durable as far as `covered` says.
    pub(crate) fn advance(&self, covered: Covered) {
        let mut state = self.state.lock();
        state.synced = state.synced.max(covered.written);
        if (covered.segment, covered.offset) > (state.segment, state.offset) {
            state.segment = covered.segment;
            state.offset = covered.offset;
        }
    }

    /// The length up to which `segment` is durable.
    pub(crate) fn offset_in(&self, segment: u32) -> u64 {
        let state = self.state.lock();
        if state.segment == segment { state.offset } else { 0 }
    }

    /// Whether what lies at an offset of a segment is durable.
    pub(crate) fn covers(&self, segment: u32, offset: u64) -> bool {
        let state = self.state.lock();
        (segment, offset) < (state.segment, state.offset)
    }

    /// Bytes appended since the store was opened that are durable.
    pub(crate) fn synced(&self) -> u64 {
        self.state.lock().synced
    }

    /// Waits until `written` bytes are durable. One of the callers runs
    /// `sync`; the others wait for it, and go again where it began too early
    /// for them. An error of `sync` is the end of writing.
    pub(crate) fn reach(&self, written: u64, sync: impl Fn() -> Result<Covered, Error>) -> Result<(), Error> {
        loop {
            let mut state = self.state.lock();
            Self::healthy(&state)?;
            if state.synced >= written {
                return Ok(());
            }
            if state.running {
                self.done.wait(&mut state);
                continue;
            }
            state.running = true;
            drop(state);
            let result = sync();
            match &result {
                Ok(covered) => self.advance(*covered),
                Err(error) => self.poison(error),
            }
            self.state.lock().running = false;
            self.done.notify_all();
            result?;
        }
    }

    /// Refuses all writing from now on.
    pub(crate) fn poison(&self, error: &Error) {
        let mut state = self.state.lock();
        if state.poisoned.is_none() {
            tracing::error!(%error, "the block store takes no more writes until it is opened again");
            state.poisoned = Some(error.to_string());
        }
    }

    /// An error where writing is refused.
    pub(crate) fn check(&self) -> Result<(), Error> {
        Self::healthy(&self.state.lock())
    }

    fn healthy(state: &State) -> Result<(), Error> {
        match &state.poisoned {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}
