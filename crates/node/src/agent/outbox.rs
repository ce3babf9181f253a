//! What waits to be reported.
//!
//! Progress replaces progress, a grant that is wanted replaces the one wanted
//! before; what is final queues up. Nothing here is durable: after a crash the
//! same events are derived again from what the store and the assignments say.
//! The size is bounded by the number of allocations.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pinfold_node_api::{AllocationId, Event, EventKind, MAX_EVENTS};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often mere progress is reported.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);

/// Waiting reports. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    urgent: Notify,
}

#[derive(Default)]
struct State {
    entries: HashMap<AllocationId, Entry>,
    /// Entries with something urgent, and entries with mere progress, each
    /// once and in the order in which they became so.
    urgent: VecDeque<AllocationId>,
    progress: VecDeque<AllocationId>,
}

#[derive(Default)]
struct Entry {
    progress: Option<EventKind>,
    /// The total that is wanted, and the one without which it stands still.
    grant: Option<(u64, u64)>,
    facts: Vec<EventKind>,
    is_urgent: bool,
    is_listed: bool,
}

impl Outbox {
    /// Where a fetch stands.
    pub(crate) fn progress(&self, allocation: AllocationId, kind: EventKind) {
        let mut state = self.shared.state.lock();
        let entry = state.entries.entry(allocation).or_default();
        entry.progress = Some(kind);
        if !entry.is_listed {
            entry.is_listed = true;
            state.progress.push_back(allocation);
        }
    }

    /// Asks for a total of bytes; the fetch stands still below `least`.
    pub(crate) fn want_grant(&self, allocation: AllocationId, bytes: u64, least: u64) {
        self.urge(allocation, |entry| entry.grant = Some((bytes, least)));
    }

    /// Tells a fact: stored, failed, lost, released, no capacity.
    pub(crate) fn tell(&self, allocation: AllocationId, kind: EventKind) {
        self.urge(allocation, |entry| {
            entry.facts.retain(|fact| std::mem::discriminant(fact) != std::mem::discriminant(&kind));
            entry.facts.push(kind);
            entry.progress = None;
        });
    }

    /// Drops what waits about an allocation that is gone.
    pub(crate) fn forget(&self, allocation: AllocationId) {
        // The lists skip what has no entry.
        self.shared.state.lock().entries.remove(&allocation);
    }

    fn urge(&self, allocation: AllocationId, change: impl FnOnce(&mut Entry)) {
        let mut state = self.shared.state.lock();
        let entry = state.entries.entry(allocation).or_default();
        change(entry);
        if !entry.is_urgent {
            entry.is_urgent = true;
            state.urgent.push_back(allocation);
        }
        drop(state);
        self.shared.urgent.notify_one();
    }

    /// Waits until something is worth a report: at once when it is urgent,
    /// [`PROGRESS_PAUSE`] after `last` for progress, and at `heartbeat` with
    /// nothing.
    pub(crate) async fn batch(&self, last: Instant, heartbeat: Instant) -> Vec<Event> {
        loop {
            let urgent = self.shared.urgent.notified();
            let (any_urgent, any_progress) = {
                let state = self.shared.state.lock();
                (!state.urgent.is_empty(), !state.progress.is_empty())
            };
            let now = Instant::now();
            let pause = last + PROGRESS_PAUSE;
            if any_urgent || now >= heartbeat || any_progress && now >= pause {
                return self.shared.state.lock().take();
            }
            // Progress does not wake this: it is looked for once per pause.
            let wake = heartbeat.min(if now >= pause { now + PROGRESS_PAUSE } else { pause });
            tokio::select! {
                () = urgent => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

impl State {
    fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(allocation) = self.next(events.len()) {
            let Some(entry) = self.entries.get_mut(&allocation) else { continue };
            entry.flush(allocation, &mut events);
            self.entries.remove(&allocation);
        }
        events
    }

    /// The next entry that still fits, urgent ones first.
    fn next(&mut self, taken: usize) -> Option<AllocationId> {
        if taken + MAX_EVENTS_PER_ENTRY > MAX_EVENTS {
            return None;
        }
        self.urgent.pop_front().or_else(|| self.progress.pop_front())
    }
}

/// Progress, a grant, and each kind of fact once: stored, failed, lost,
/// released, no capacity, compared.
const MAX_EVENTS_PER_ENTRY: usize = 8;

impl Entry {
    fn flush(&mut self, allocation: AllocationId, to: &mut Vec<Event>) {
        let grant = self.grant.take().map(|(bytes, least)| EventKind::WantGrant { bytes, least });
        let kinds = self.progress.take().into_iter().chain(grant).chain(self.facts.drain(..));
        to.extend(kinds.map(|kind| Event { allocation, kind }));
    }
}

#[cfg(test)]
mod tests {
    use pinfold_core::status::Reason;

    use super::*;

    fn id(content: i64) -> AllocationId {
        AllocationId { content, generation: 1 }
    }

    fn progress(bytes: u64) -> EventKind {
        let reason = Reason::Retrieving;
        EventKind::Progress { blocks: 1, bytes, reason, attempts: 1, next_attempt_ms: None }
    }

    #[tokio::test]
    async fn progress_is_merged_and_waits_and_facts_go_at_once() {
        let (outbox, start) = (Outbox::default(), Instant::now());
        let far = start + Duration::from_secs(60);
        outbox.progress(id(1), progress(1));
        outbox.progress(id(1), progress(2));
        let batch = outbox.batch(start, far).await;
        assert_eq!(batch, [Event { allocation: id(1), kind: progress(2) }]);
        assert!(start.elapsed() >= PROGRESS_PAUSE);
        outbox.progress(id(1), progress(3));
        outbox.tell(id(2), EventKind::Released);
        let again = Instant::now();
        let batch = outbox.batch(again, far).await;
        assert!(again.elapsed() < PROGRESS_PAUSE, "at once");
        assert_eq!(batch.iter().map(|event| event.allocation.content).collect::<Vec<_>>(), [2, 1]);
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(outbox.batch(Instant::now(), soon).await, [], "a heartbeat");
        assert!(Instant::now() >= soon);
    }

    #[tokio::test]
    async fn batches_are_bounded_and_lose_nothing() {
        let outbox = Outbox::default();
        (0..1_000).for_each(|content| outbox.tell(id(content), EventKind::NoCapacity));
        outbox.forget(id(7));
        let mut seen = Vec::new();
        while seen.len() < 999 {
            let batch = outbox.batch(Instant::now(), Instant::now()).await;
            assert!(!batch.is_empty() && batch.len() <= MAX_EVENTS);
            seen.extend(batch.into_iter().map(|event| event.allocation.content));
        }
        assert!(seen.is_sorted() && !seen.contains(&7));
    }

    #[tokio::test]
    async fn facts_of_one_allocation_keep_their_order() {
        let outbox = Outbox::default();
        outbox.tell(id(1), EventKind::Lost { blocks: 1 });
        outbox.want_grant(id(1), 5, 0);
        outbox.tell(id(1), EventKind::NoCapacity);
        outbox.tell(id(1), EventKind::Lost { blocks: 2 });
        let kinds: Vec<_> =
            outbox.batch(Instant::now(), Instant::now()).await.into_iter().map(|event| event.kind).collect();
        let want = [
            EventKind::WantGrant { bytes: 5, least: 0 },
            EventKind::NoCapacity,
            EventKind::Lost { blocks: 2 },
        ];
        assert_eq!(kinds, want);
    }
}
