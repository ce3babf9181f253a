//! What one peer wants.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use cid::Cid;

use crate::link::Link;
use crate::wire::{Entry, Kind};

/// DONT_HAVE owed for wants that the ledger does not keep; beyond it they are
/// dropped, and the peer asks again.
const MAX_DENIALS: usize = 4_096;

/// What a peer is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A block of this length.
    Block(u32),
    Have,
}

/// One want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    kind: Kind,
    priority: i32,
    sequence: u64,
    pub(super) send_dont_have: bool,
    /// `None` while the block is not held.
    pub(super) answer: Option<Answer>,
}

/// The place of a want in the order of answers: by priority, then by age.
type Place = (Reverse<i32>, u64);

/// What one peer wants, and the connections to it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) links: Vec<Arc<Link>>,
    wants: HashMap<Cid, Wanted>,
    /// Wants that have an answer.
    ready: BTreeMap<Place, Cid>,
    /// Wants of blocks that are not held, by age.
    missing: BTreeMap<u64, Cid>,
    /// Whom DONT_HAVE is owed about. The wants stay, in case that the blocks
    /// come.
    denials: VecDeque<Cid>,
    next: u64,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }

    pub(super) fn contains(&self, cid: &Cid) -> bool {
        self.wants.contains_key(cid)
    }

    /// What is wanted of a CID.
    pub(super) fn kind_of(&self, cid: &Cid) -> Option<Kind> {
        self.wants.get(cid).map(|wanted| wanted.kind)
    }

    pub(super) fn wake(&self) {
        for link in &self.links {
            link.wake();
        }
    }

    pub(super) fn insert(&mut self, entry: &Entry) {
        let sequence = self.next;
        self.next += 1;
        self.missing.insert(sequence, entry.cid);
        self.wants.insert(
            entry.cid,
            Wanted {
                kind: entry.kind,
                priority: entry.priority,
                sequence,
                send_dont_have: entry.send_dont_have,
                answer: None,
            },
        );
    }

    pub(super) fn remove(&mut self, cid: &Cid) -> Option<Wanted> {
        let wanted = self.wants.remove(cid)?;
        self.ready.remove(&(Reverse(wanted.priority), wanted.sequence));
        self.missing.remove(&wanted.sequence);
        Some(wanted)
    }

    /// Forgets all. Returns how many wants there were, and those of blocks
    /// that are not held.
    pub(super) fn clear(&mut self) -> (usize, Vec<Cid>) {
        let count = self.wants.len();
        self.wants = HashMap::new();
        self.ready.clear();
        self.denials.clear();
        (count, std::mem::take(&mut self.missing).into_values().collect())
    }

    /// The want to give up for one of `priority`: the oldest of a block that
    /// is not held, else the last in order if it has a lower priority.
    pub(super) fn least(&self, priority: i32) -> Option<Cid> {
        if let Some((_, cid)) = self.missing.first_key_value() {
            return Some(*cid);
        }
        let ((Reverse(lowest), _), cid) = self.ready.last_key_value()?;
        (*lowest < priority).then_some(*cid)
    }

    /// Has a want answered.
    pub(super) fn answer(&mut self, cid: &Cid, answer: Answer) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        wanted.answer = Some(answer);
        self.missing.remove(&wanted.sequence);
        self.ready.insert((Reverse(wanted.priority), wanted.sequence), *cid);
    }

    /// Has DONT_HAVE said, whether the want is kept or not.
    pub(super) fn deny(&mut self, cid: &Cid) {
        if self.denials.len() < MAX_DENIALS {
            self.denials.push_back(*cid);
        }
    }

    /// The wants, under whatever codec, of a block that has come.
    pub(super) fn waiting_for(&self, cid: &Cid) -> Vec<(Cid, Kind)> {
        let waits = |wanted: &Wanted| wanted.answer.is_none();
        if let Some(wanted) = self.wants.get(cid).filter(|wanted| waits(wanted)) {
            return vec![(*cid, wanted.kind)];
        }
        (self.wants.iter())
            .filter(|(other, wanted)| other.hash() == cid.hash() && waits(wanted))
            .map(|(other, wanted)| (*other, wanted.kind))
            .collect()
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.ready.is_empty() || !self.denials.is_empty()
    }

    /// Whether the next answer is a block, for which memory is needed.
    pub(super) fn next_is_block(&self) -> bool {
        let first = self.ready.first_key_value().and_then(|(_, cid)| self.wants.get(cid));
        first.is_some_and(|wanted| matches!(wanted.answer, Some(Answer::Block(_))))
    }

    /// Takes the next answer out.
    pub(super) fn pop(&mut self) -> Option<(Cid, Wanted)> {
        let (_, cid) = self.ready.pop_first()?;
        let wanted = self.wants.remove(&cid)?;
        Some((cid, wanted))
    }

    /// Takes out CIDs that the peer is told to be missing here.
    pub(super) fn take_denials(&mut self, most: usize) -> Vec<(Cid, bool)> {
        let count = self.denials.len().min(most);
        self.denials.drain(..count).map(|cid| (cid, false)).collect()
    }
}
