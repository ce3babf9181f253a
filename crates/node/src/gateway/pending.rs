//! What a walk still has to visit: the levels of the way down, each with the
//! links of one block, in order and packed into bytes.
//!
//! A decoded CID takes several times the memory of its bytes, and a block may
//! hold a hundred thousand links on each of many levels.

use std::ops::Range;

use pinfold_core::content::{self, Cid};

use super::{budget::Lease, source::Unserved};

/// Bytes that a level takes besides its links.
const LEVEL_BYTES: usize = 64;
/// Bytes of the three numbers of a part of a file.
const PART_BYTES: usize = 24;

/// A block to be visited, and how much below it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) cid: Cid,
    pub(super) below: Below,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// The shards of a directory.
    Shards,
    /// These bytes of a part of a file, which has `size` of them.
    Part { size: u64, range: Range<u64> },
}

impl Below {
    /// Whether a second visit would bring nothing that the first did not.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::All | Self::Shards => true,
            Self::Part { size, range } => *range == (0..*size),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Nothing,
    All,
    Shards,
    Part,
}

/// The links of one block.
pub(super) struct Level {
    kind: Kind,
    packed: Vec<u8>,
    at: usize,
}

impl Level {
    pub(super) fn all() -> Self {
        Self { kind: Kind::All, packed: Vec::new(), at: 0 }
    }

    pub(super) fn shards() -> Self {
        Self { kind: Kind::Shards, ..Self::all() }
    }

    pub(super) fn parts() -> Self {
        Self { kind: Kind::Part, ..Self::all() }
    }

    /// A level of one visit.
    pub(super) fn of(visit: &Visit) -> Self {
        let (kind, part) = match &visit.below {
            Below::Nothing => (Kind::Nothing, None),
            Below::All => (Kind::All, None),
            Below::Shards => (Kind::Shards, None),
            Below::Part { size, range } => (Kind::Part, Some((*size, range.clone()))),
        };
        let mut level = Self { kind, ..Self::all() };
        level.push(&visit.cid);
        if let Some((size, range)) = part {
            level.push_numbers(size, &range);
        }
        level
    }

    pub(super) fn push(&mut self, cid: &Cid) {
        let length = cid.encoded_len();
        // A digest has at most 128 bytes, a CID some forty more.
        self.packed.push(u8::try_from(length).expect("a CID has fewer than 256 bytes"));
        // Writing to memory does not fail.
        let _ = cid.write_bytes(&mut self.packed);
    }

    pub(super) fn push_part(&mut self, cid: &Cid, size: u64, range: &Range<u64>) {
        self.push(cid);
        self.push_numbers(size, range);
    }

    fn push_numbers(&mut self, size: u64, range: &Range<u64>) {
        for number in [size, range.start, range.end] {
            self.packed.extend(number.to_le_bytes());
        }
    }

    fn pop(&mut self) -> Option<Visit> {
        let length = usize::from(*self.packed.get(self.at)?);
        let cid = self.take(1 + length);
        let cid = content::from_bytes(&cid[1..]).expect("it was packed from a CID");
        let below = match self.kind {
            Kind::Nothing => Below::Nothing,
            Kind::All => Below::All,
            Kind::Shards => Below::Shards,
            Kind::Part => {
                let numbers = self.take(PART_BYTES);
                let (numbers, _) = numbers.as_chunks::<8>();
                let [size, start, end] = [0, 1, 2].map(|index| u64::from_le_bytes(numbers[index]));
                Below::Part { size, range: start..end }
            }
        };
        Some(Visit { cid, below })
    }

    fn take(&mut self, length: usize) -> &[u8] {
        self.at += length;
        &self.packed[self.at - length..self.at]
    }

    fn cost(&self) -> usize {
        LEVEL_BYTES + self.packed.capacity()
    }
}

/// The levels, the deepest last.
#[derive(Default)]
pub(super) struct Pending {
    levels: Vec<Level>,
}

impl Pending {
    /// Goes down a level.
    pub(super) fn push(&mut self, mut level: Level, lease: &mut Lease) -> Result<(), Unserved> {
        if level.packed.is_empty() {
            return Ok(());
        }
        level.packed.shrink_to_fit();
        if !lease.take(level.cost()) {
            return Err(Unserved::Limit(
                "this DAG is too wide and deep to be walked at once; ask for parts of it",
            ));
        }
        self.levels.push(level);
        Ok(())
    }

    /// The next visit in depth-first order.
    pub(super) fn pop(&mut self, lease: &mut Lease) -> Option<Visit> {
        loop {
            if let Some(visit) = self.levels.last_mut()?.pop() {
                return Some(visit);
            }
            if let Some(level) = self.levels.pop() {
                lease.give(level.cost());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn cid(number: u8) -> Cid {
        let multihash = pinfold_core::hash::multihash(0x12, &[number]).expect("SHA-256");
        Cid::new_v1(0x55, multihash)
    }

    #[test]
    fn visits_come_depth_first_and_in_order() {
        let (mut pending, mut lease) = (Pending::default(), Budget::default().lease());
        let mut level = Level::all();
        level.push(&cid(0));
        level.push(&content::parse("bafkqaaa").expect("a CID"));
        pending.push(level, &mut lease).expect("room");
        assert_eq!(pending.pop(&mut lease).expect("a visit").cid, cid(0));
        let mut level = Level::parts();
        level.push_part(&cid(1), 10, &(3..7));
        pending.push(level, &mut lease).expect("room");
        pending.push(Level::shards(), &mut lease).expect("room");
        let part = Visit { cid: cid(1), below: Below::Part { size: 10, range: 3..7 } };
        assert_eq!(pending.pop(&mut lease), Some(part.clone()));
        assert_eq!(pending.pop(&mut lease).expect("a visit").below, Below::All);
        assert_eq!(pending.pop(&mut lease), None);
        assert_eq!(Level::of(&part).pop(), Some(part));
    }
}
