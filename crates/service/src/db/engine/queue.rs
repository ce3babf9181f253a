//! A bounded queue between many callers and a few threads.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::db::error::{Error, Result};

/// See the module.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    ended: Condvar,
    bound: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let state = State { waiting: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), ended: Condvar::new(), bound }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, [`Error::Closed`] after
    /// [`Self::close`].
    pub(super) fn push(&self, item: T) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.waiting.len() >= self.bound {
            return Err(Error::Busy);
        }
        state.waiting.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for items and takes up to `most`; `None` once the queue is closed
    /// and empty.
    pub(super) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        let count = most.min(state.waiting.len());
        Some(state.waiting.drain(..count).collect())
    }

    /// Refuses further items; what waits is still taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.ended.notify_all();
    }

    /// Closes the queue and drops what waits: nobody will take it.
    pub(super) fn abandon(&self) {
        self.close();
        self.state.lock().waiting.clear();
    }

    /// Sleeps until the queue is closed or the time has passed; answers
    /// whether it is closed.
    pub(super) fn closed_within(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            self.ended.wait_for(&mut state, time);
        }
        state.closed
    }
}
