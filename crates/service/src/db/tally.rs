//! Exact counts in the time of a page.
//!
//! `seq` numbers an account's pins 0, 1, 2, … in the order of `created`. A row
//! of `tally` at level 0, 1 or 2 counts the pins of 256, 65,536 or 16,777,216
//! consecutive numbers by status. How many pins are older than a moment is
//! then the sum of at most 255 rows of each level and of a look at up to 256
//! pins: `prefix` of [`super::list`] has the reading side.

use std::collections::BTreeMap;

use pinfold_core::status::Status;

use super::{
    error::Result,
    sql::{Value, values},
    types::AccountId,
};

/// Levels of the tally; each counts 256 times as many pins as the one below.
pub(crate) const LEVELS: u32 = 3;

/// Bits of `seq` that one level takes.
pub(crate) const BITS: u32 = 8;

/// Adds a row of sums.
pub(crate) const ADD: &str = "INSERT INTO tally (account, level, bucket, queued, pinning, pinned, failed)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (account, level, bucket) DO UPDATE SET
        queued = tally.queued + excluded.queued, pinning = tally.pinning + excluded.pinning,
        pinned = tally.pinned + excluded.pinned, failed = tally.failed + excluded.failed";

/// What a transaction changes, summed up per row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deltas(BTreeMap<(AccountId, u32, i64), [i64; 4]>);

impl Deltas {
    /// A pin more with this status.
    pub(crate) fn add(&mut self, account: AccountId, seq: i64, status: Status) {
        self.change(account, seq, status, 1);
    }

    /// A pin less with this status.
    pub(crate) fn remove(&mut self, account: AccountId, seq: i64, status: Status) {
        self.change(account, seq, status, -1);
    }

    fn change(&mut self, account: AccountId, seq: i64, status: Status, by: i64) {
        for level in 0..LEVELS {
            let bucket = seq >> (BITS * (level + 1));
            self.0.entry((account, level, bucket)).or_default()[status as usize] += by;
        }
    }
}

/// Takes the sums as parameters of [`ADD`], in the order of their rows.
pub(crate) fn sums(deltas: &mut Deltas) -> Vec<Vec<Value>> {
    let changed = std::mem::take(deltas).0.into_iter().filter(|(_, counts)| *counts != [0; 4]);
    changed
        .map(|((account, level, bucket), [queued, pinning, pinned, failed])| {
            values![account, i64::from(level), bucket, queued, pinning, pinned, failed].to_vec()
        })
        .collect()
}

/// The number that stands for a status in the database: its place in
/// [`Status::ALL`].
pub(crate) fn number(status: Status) -> i64 {
    status as i64
}

/// The status with this number.
pub(crate) fn status(number: i64) -> Result<Status> {
    let status = usize::try_from(number).ok().and_then(|number| Status::ALL.get(number));
    status.copied().ok_or_else(|| super::Error::Corrupt(format!("status {number}")))
}
