//! Turns at moving data, shared fairly between accounts.
//!
//! A few fetches at a time move data; each holds a [`Slot`]. The next one goes
//! to the account with the fewest, repairs before new content, and one account
//! alone never has all of them, so that a newcomer need not wait for another's
//! large transfer. A holder gives its slot back after a [`TURN`] when others
//! wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Fetches that move data at the same time: enough to hide slow sources, few
/// enough that their windows fit into memory.
const SLOTS: usize = 16;

/// How long a fetch keeps its slot while others wait. One whose sources
/// trickle is ended after two.
const TURN: Duration = Duration::from_secs(30);

/// Hands out slots.
#[derive(Clone)]
pub(crate) struct Slots {
    shared: Arc<Mutex<State>>,
    turn: Duration,
}

#[derive(Default)]
struct State {
    capacity: usize,
    taken: usize,
    holders: HashMap<i64, usize>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    fairness: i64,
    repair: bool,
    slot: oneshot::Sender<()>,
}

/// The right to move data, until it is dropped.
pub(crate) struct Slot {
    slots: Slots,
    fairness: i64,
    since: Instant,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self::with(SLOTS, TURN)
    }

    /// So many, each for so long while others wait.
    pub(crate) fn with(capacity: usize, turn: Duration) -> Self {
        Self { shared: Arc::new(Mutex::new(State { capacity, ..State::default() })), turn }
    }

    /// Waits for a slot. Dropping the future gives the place in the queue up.
    pub(crate) async fn acquire(self, fairness: i64, repair: bool) -> Slot {
        let (slot, granted) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            state.waiting.push(Waiting { fairness, repair, slot });
            state.serve();
        }
        // The guard exists before the wait, so that a slot that is granted to
        // a future which is dropped at that moment comes back.
        let mut pending = Pending { slots: &self, fairness, granted, taken: false };
        (&mut pending.granted).await.expect("a waiting entry is kept until it is served");
        pending.taken = true;
        Slot { slots: self.clone(), fairness, since: Instant::now() }
    }

    /// How many hold one, at least 1.
    pub(crate) fn moving(&self) -> usize {
        self.shared.lock().taken.max(1)
    }

    fn give_back(&self, fairness: i64) {
        let mut state = self.shared.lock();
        state.taken -= 1;
        if let Some(held) = state.holders.get_mut(&fairness) {
            *held -= 1;
            if *held == 0 {
                state.holders.remove(&fairness);
            }
        }
        state.serve();
    }
}

/// A place in the queue.
struct Pending<'a> {
    slots: &'a Slots,
    fairness: i64,
    granted: oneshot::Receiver<()>,
    taken: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Closed first: what is granted after this fails at the sender.
        self.granted.close();
        if !self.taken && self.granted.try_recv().is_ok() {
            self.slots.give_back(self.fairness);
        }
    }
}

impl State {
    /// One account's share: three quarters, or all but one.
    fn share(&self) -> usize {
        (self.capacity * 3 / 4).max(1)
    }

    fn serve(&mut self) {
        self.waiting.retain(|waiting| !waiting.slot.is_closed());
        while self.taken < self.capacity {
            let Some(index) = self.choose() else { return };
            let next = self.waiting.remove(index);
            if next.slot.send(()).is_ok() {
                self.taken += 1;
                *self.holders.entry(next.fairness).or_default() += 1;
            }
        }
    }

    /// The waiting entry whose turn it is: repairs first, then whose account
    /// holds the fewest, then who came first.
    fn choose(&self) -> Option<usize> {
        let held = |waiting: &Waiting| self.holders.get(&waiting.fairness).copied().unwrap_or(0);
        let eligible = self.waiting.iter().enumerate().filter(|(_, waiting)| held(waiting) < self.share());
        eligible
            .min_by_key(|(index, waiting)| (!waiting.repair, held(waiting), *index))
            .map(|(index, _)| index)
    }
}

impl Slot {
    /// Whether its turn is over.
    pub(crate) fn should_yield(&self) -> bool {
        self.since.elapsed() >= self.slots.turn && self.slots.is_contended(self.fairness)
    }

    /// Whether it is over for so long that what is still under way, from a
    /// source that trickles, is no reason to keep it.
    pub(crate) fn overstays(&self) -> bool {
        self.since.elapsed() >= self.slots.turn * 2 && self.slots.is_contended(self.fairness)
    }
}

impl Slots {
    /// Whether somebody waits who could use the slot of this account.
    fn is_contended(&self, fairness: i64) -> bool {
        let state = self.shared.lock();
        let full = state.taken >= state.capacity;
        state
            .waiting
            .iter()
            .any(|waiting| !waiting.slot.is_closed() && (full || waiting.fairness == fairness))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(self.fairness);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn slots(capacity: usize) -> Slots {
        Slots::with(capacity, TURN)
    }

    /// Whether a slot that was had for so long is to be given back soon, and
    /// whether at once.
    fn judged(slot: &mut Slot, after: Duration) -> (bool, bool) {
        slot.since = Instant::now() - after;
        (slot.should_yield(), slot.overstays())
    }

    fn take(slots: &Slots, fairness: i64) -> Option<Slot> {
        slots.clone().acquire(fairness, false).now_or_never()
    }

    #[test]
    fn one_account_never_has_every_slot() {
        let slots = slots(4);
        let first: Vec<_> = (0..3).map(|_| take(&slots, 1).expect("within its share")).collect();
        assert!(take(&slots, 1).is_none());
        let second = take(&slots, 2).expect("the reserve");
        assert!(take(&slots, 3).is_none());
        drop(first);
        assert!(take(&slots, 3).is_some());
        drop(second);
        assert_eq!(slots.shared.lock().taken, 0);
        assert!(slots.shared.lock().holders.is_empty());
    }

    #[test]
    fn the_next_slot_goes_to_repairs_then_to_who_has_fewest() {
        let slots = slots(2);
        let one = take(&slots, 1).expect("free");
        let two = take(&slots, 2).expect("free");
        let mut waiting: Vec<_> = [(1, false), (3, false), (9, true)]
            .map(|(fairness, repair)| Box::pin(slots.clone().acquire(fairness, repair)))
            .into();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        drop(two);
        let repair = waiting.remove(2).now_or_never().expect("repairs first");
        drop(repair);
        let third = waiting.remove(1).now_or_never().expect("it has none yet");
        drop((one, third));
        assert!(waiting.remove(0).now_or_never().is_some());
    }

    #[test]
    fn a_slot_granted_to_a_dropped_future_comes_back() {
        let slots = slots(1);
        let one = take(&slots, 1).expect("free");
        let mut waiting = Box::pin(slots.clone().acquire(2, false));
        assert!((&mut waiting).now_or_never().is_none());
        drop(one);
        drop(waiting);
        assert!(take(&slots, 3).is_some());
    }

    #[test]
    fn a_turn_ends_when_somebody_waits_who_can_use_it() {
        let (second, slots) = (Duration::from_secs(1), slots(4));
        let mut mine: Vec<_> = (0..3).map(|_| take(&slots, 1).expect("within its share")).collect();
        assert_eq!(judged(&mut mine[0], 100 * TURN), (false, false), "nobody waits");
        // Who waits beyond its share can use a slot of its own account alone.
        let mut again = Box::pin(slots.clone().acquire(1, false));
        assert!((&mut again).now_or_never().is_none());
        let mut other = take(&slots, 2).expect("the reserve");
        assert_eq!(judged(&mut mine[0], TURN), (true, false));
        drop(again);
        assert_eq!(judged(&mut mine[0], TURN), (false, false), "it waits no longer");
        // When all are taken, whoever waits can use any.
        let mut third = Box::pin(slots.clone().acquire(3, false));
        assert!((&mut third).now_or_never().is_none());
        for slot in [&mut mine[0], &mut other] {
            assert_eq!(judged(slot, TURN - second), (false, false));
            assert_eq!(judged(slot, 2 * TURN - second), (true, false));
            assert_eq!(judged(slot, 2 * TURN), (true, true));
        }
        drop(other);
        assert!(third.now_or_never().is_some());
    }

    #[test]
    fn an_account_that_waits_for_its_own_share_ends_no_turn_of_others() {
        let slots = slots(8);
        let _mine: Vec<_> = (0..6).map(|_| take(&slots, 1).expect("within its share")).collect();
        let mut other = take(&slots, 2).expect("free");
        let mut again = Box::pin(slots.clone().acquire(1, false));
        assert!((&mut again).now_or_never().is_none());
        assert_eq!(judged(&mut other, 100 * TURN), (false, false));
    }
}
