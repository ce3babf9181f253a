//! Which content is tried next.
//!
//! Repairs come first, then contents whose source has just arrived, then new
//! ones, then those that were tried before; within each, accounts take turns.
//! So a hundred thousand contents that nobody has delay neither another
//! account's content nor a newer one of the same account.

use std::collections::{HashMap, VecDeque};

/// Attempts at the same time. Most of them search, which costs a session and
/// a few dials; those that move data are limited further.
pub(super) const MAX_ATTEMPTS: usize = 256;

/// What one account has of them at most: the rest is for the others.
const MAX_SHARE: usize = MAX_ATTEMPTS * 3 / 4;

/// Why a content is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// A copy was lost.
    Repair,
    /// A peer that should have it is connected now.
    Arrived,
    /// Not tried before.
    New,
    /// Tried before.
    Again,
}

const CLASSES: usize = 4;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: [Turns; CLASSES],
    running: HashMap<i64, usize>,
    total: usize,
}

/// Contents by account, accounts in turn.
#[derive(Debug, Default)]
struct Turns {
    accounts: VecDeque<i64>,
    contents: HashMap<i64, VecDeque<i64>>,
}

impl Queue {
    /// Appends a content. It may be in the queue more than once, in several
    /// classes: whoever pops it looks whether it still waits.
    pub(super) fn push(&mut self, class: Class, fairness: i64, content: i64) {
        let turns = &mut self.classes[class as usize];
        let contents = turns.contents.entry(fairness).or_default();
        if contents.is_empty() {
            turns.accounts.push_back(fairness);
        }
        contents.push_back(content);
    }

    /// The next content, if one may start. `waits` tells whether it still
    /// waits; those that do not are dropped.
    pub(super) fn pop(&mut self, waits: impl Fn(i64) -> bool) -> Option<i64> {
        if self.total >= MAX_ATTEMPTS {
            return None;
        }
        let running = &self.running;
        let may = |fairness: i64| running.get(&fairness).is_none_or(|running| *running < MAX_SHARE);
        self.classes.iter_mut().find_map(|turns| turns.pop(&may, &waits))
    }

    /// Attempts that go on.
    pub(super) fn running(&self) -> usize {
        self.total
    }

    /// Counts an attempt that began.
    pub(super) fn begin(&mut self, fairness: i64) {
        self.total += 1;
        *self.running.entry(fairness).or_default() += 1;
    }

    /// Counts an attempt that ended.
    pub(super) fn end(&mut self, fairness: i64) {
        self.total -= 1;
        if let Some(running) = self.running.get_mut(&fairness) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&fairness);
            }
        }
    }
}

impl Turns {
    fn pop(&mut self, may: &impl Fn(i64) -> bool, waits: &impl Fn(i64) -> bool) -> Option<i64> {
        for _ in 0..self.accounts.len() {
            let fairness = self.accounts.pop_front()?;
            if !may(fairness) {
                self.accounts.push_back(fairness);
                continue;
            }
            let next = self.take(fairness, waits);
            if self.contents.contains_key(&fairness) {
                self.accounts.push_back(fairness);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn take(&mut self, fairness: i64, waits: &impl Fn(i64) -> bool) -> Option<i64> {
        let contents = self.contents.get_mut(&fairness)?;
        let next = std::iter::from_fn(|| contents.pop_front()).find(|content| waits(*content));
        if contents.is_empty() {
            self.contents.remove(&fairness);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> Vec<i64> {
        std::iter::from_fn(|| queue.pop(|_| true)).collect()
    }

    #[test]
    fn accounts_take_turns_and_repairs_come_first() {
        let mut queue = Queue::default();
        (0..3).for_each(|content| queue.push(Class::New, 1, content));
        queue.push(Class::New, 2, 10);
        queue.push(Class::Again, 3, 20);
        queue.push(Class::Arrived, 1, 30);
        queue.push(Class::Repair, 9, 40);
        assert_eq!(drain(&mut queue), [40, 30, 0, 10, 1, 2, 20]);
    }

    #[test]
    fn one_account_leaves_room_for_others_and_all_are_bounded() {
        let mut queue = Queue::default();
        (0..1_000).for_each(|content| queue.push(Class::New, 1, content));
        let start = |queue: &mut Queue, fairness| {
            let next = queue.pop(|_| true);
            next.inspect(|_| queue.begin(fairness))
        };
        assert_eq!(std::iter::from_fn(|| start(&mut queue, 1)).count(), MAX_SHARE);
        (1_000..2_000).for_each(|content| queue.push(Class::Again, 2, content));
        assert_eq!(start(&mut queue, 2), Some(1_000));
        assert_eq!(std::iter::from_fn(|| start(&mut queue, 2)).count(), MAX_ATTEMPTS - MAX_SHARE - 1);
        queue.end(1);
        assert_eq!(start(&mut queue, 1), Some(MAX_SHARE as i64));
    }

    #[test]
    fn what_no_longer_waits_is_dropped() {
        let mut queue = Queue::default();
        (0..5).for_each(|content| queue.push(Class::New, 1, content));
        assert_eq!(queue.pop(|content| content > 3), Some(4));
        assert_eq!(queue.pop(|_| true), None);
        assert!(queue.classes.iter().all(|turns| turns.accounts.is_empty() && turns.contents.is_empty()));
    }
}
