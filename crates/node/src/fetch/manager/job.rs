//! One unfinished content, in as little memory as hundreds of thousands of
//! them allow: origins and hints stay on disk and are read for each attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pinfold_node_api::AllocationId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::report::{Reporter, Told};
use super::super::transfer::Input;
use super::queue::Class;
use crate::agent::Outbox;
use crate::assignments::Record;

/// An unfinished content.
pub(super) struct Job<P> {
    pub(super) generation: Arc<AtomicI64>,
    /// What the service was last told of it.
    pub(super) told: Arc<Told>,
    pub(super) fairness: i64,
    pub(super) repair: bool,
    /// Attempts begun.
    pub(super) attempts: u32,
    /// Attempts since the last that brought a block: what the pause grows by.
    pub(super) vain: u32,
    pub(super) granted: u64,
    /// Origins that are expected to connect.
    pub(super) peers: Box<[P]>,
    /// In the queue because a peer that should have it has arrived.
    pub(super) arrived: bool,
    pub(super) state: State,
}

/// What it is doing.
pub(super) enum State {
    /// Waiting for its turn.
    Queued,
    /// Waiting for its next attempt.
    Waiting(Instant),
    /// Being tried.
    Running(Running),
}

/// An attempt.
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    pub(super) input: watch::Sender<Input>,
    pub(super) origins: mpsc::Sender<Vec<String>>,
    /// The account that the attempt was counted for.
    pub(super) fairness: i64,
    pub(super) then: Then,
}

/// What is to be done when an attempt was cancelled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing was asked of it.
    Nothing,
    /// Begin again: the rules have changed.
    Again,
    /// The service does not know the allocation.
    Stop,
    /// Let the root go.
    Release(Box<Record>),
}

impl<P> Job<P> {
    pub(super) fn new(record: &Record, lost: bool, peers: Box<[P]>) -> Self {
        Self {
            generation: Arc::new(AtomicI64::new(record.generation)),
            told: Arc::default(),
            fairness: record.fairness,
            repair: record.repair || lost,
            attempts: 0,
            vain: 0,
            granted: record.granted_bytes,
            peers,
            arrived: false,
            state: State::Queued,
        }
    }

    pub(super) fn allocation(&self, content: i64) -> AllocationId {
        AllocationId { content, generation: self.generation.load(Ordering::Relaxed) }
    }

    /// What tells the service where it stands.
    pub(super) fn reporter(&self, outbox: &Outbox, content: i64) -> Reporter {
        let (generation, told) = (Arc::clone(&self.generation), Arc::clone(&self.told));
        Reporter::new(outbox.clone(), content, generation, self.attempts, told)
    }

    /// How it queues up when its time has come.
    pub(super) fn class(&self, arrived: bool) -> Class {
        match (self.repair, arrived, self.attempts) {
            (true, ..) => Class::Repair,
            (_, true, _) => Class::Arrived,
            (.., 0) => Class::New,
            _ => Class::Again,
        }
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.state, State::Queued)
    }

    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            State::Queued | State::Waiting(_) => None,
        }
    }
}

impl Running {
    /// Cancels the attempt for a reason that outweighs an earlier one.
    pub(super) fn stop(&mut self, then: Then) {
        let outweighs = match (&self.then, &then) {
            (Then::Release(_), _) => matches!(then, Then::Release(_)),
            (Then::Stop, Then::Again | Then::Nothing) => false,
            _ => true,
        };
        if outweighs {
            self.then = then;
        }
        self.cancel.cancel();
    }

    /// Tells the attempt what may be held, or that nothing may.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Input)) {
        self.input.send_modify(|input| {
            change(input);
            input.answers += 1;
        });
    }
}

/// The pauses between attempts at what nobody has.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// After the first.
    pub first: Duration,
    /// The longest; each is twice the one before.
    pub longest: Duration,
    /// When the store is full.
    pub full: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            longest: Duration::from_secs(3_600),
            full: Duration::from_secs(300),
        }
    }
}

impl Pauses {
    /// The pause after so many attempts in vain, with a quarter of jitter, so
    /// that what failed together is not tried together.
    pub(super) fn after(&self, vain: u32) -> Duration {
        let pause = self.first.saturating_mul(1 << vain.saturating_sub(1).min(20)).min(self.longest);
        pause.mul_f64(rand::random_range(0.75..1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses = Pauses::default();
        let about = |vain, seconds: u64| {
            let pause = pauses.after(vain).as_secs_f64() / seconds as f64;
            assert!((0.75..1.25).contains(&pause), "{vain}: {pause}");
        };
        about(1, 5);
        about(2, 10);
        about(4, 40);
        about(11, 3_600);
        about(u32::MAX, 3_600);
    }
}
