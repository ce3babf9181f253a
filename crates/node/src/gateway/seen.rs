//! Which blocks a CAR already has.
//!
//! Remembered is a keyed 128-bit hash of codec and multihash, which takes a
//! fraction of their memory; the keys are drawn at random for each walk, so
//! that nobody can make two contents that are taken for one.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use pinfold_core::content::Cid;

use super::{budget::Lease, source::Unserved};

/// Bytes that an entry takes in a hash set right after it has grown: 17 in a
/// bucket, of which seven of sixteen are in use.
const ENTRY_BYTES: usize = 40;

/// What was sent, and what was sent with all that is wanted below it.
#[derive(Default)]
pub(super) struct Seen {
    high: RandomState,
    low: RandomState,
    entries: HashSet<u128>,
}

/// What is known of a block before it is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was not sent.
    No,
    /// It was sent, with a part of what is below it or nothing.
    Sent,
    /// It was sent with all that is wanted below it.
    Done,
}

impl Seen {
    /// Notes a visit, `whole` where everything below it follows, and says
    /// what was known before.
    pub(super) fn visit(&mut self, cid: &Cid, whole: bool, lease: &mut Lease) -> Result<Known, Unserved> {
        let key = self.key(cid);
        let (sent, done) = (key & !1, key | 1);
        let known = if self.entries.contains(&done) {
            Known::Done
        } else if self.entries.contains(&sent) {
            Known::Sent
        } else {
            Known::No
        };
        let note = match known {
            Known::Done => None,
            Known::Sent => whole.then_some(done),
            Known::No => Some(if whole { done } else { sent }),
        };
        if let Some(note) = note {
            if !lease.take(ENTRY_BYTES) {
                return Err(Unserved::Limit(
                    "too many blocks for a CAR without duplicates; ask for dups=y, or for parts of it",
                ));
            }
            self.entries.insert(note);
        }
        Ok(known)
    }

    fn key(&self, cid: &Cid) -> u128 {
        let content = (cid.codec(), cid.hash().code(), cid.hash().digest());
        u128::from(self.high.hash_one(content)) << 64 | u128::from(self.low.hash_one(content))
    }
}
