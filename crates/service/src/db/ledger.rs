//! What an account may use, uses and has reserved. Every change of either goes
//! through [`Purse::pay`], on a row that the transaction has locked.

use super::{
    error::{Error, PinRefusal, Result},
    sql::{Row, Value, values},
    types::{AccountId, Millis},
};

pub(crate) const LOCK: &str = "SELECT id, quota, used, reserved, disabled, removing, next_seq, \
    last_created, turns_due FROM account WHERE id = $1 FOR UPDATE";

pub(crate) const UPDATE: &str = "UPDATE account SET used = $2, reserved = $3, next_seq = $4, \
    last_created = $5, turns_due = $6 WHERE id = $1";

/// The part of an account's row that pins change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purse {
    pub(crate) id: AccountId,
    pub(crate) quota: i64,
    pub(crate) used: i64,
    pub(crate) reserved: i64,
    pub(crate) disabled: bool,
    pub(crate) next_seq: i64,
    pub(crate) last_created: Millis,
    pub(crate) turns_due: bool,
}

impl Purse {
    /// Reads the columns of [`LOCK`].
    pub(crate) fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.int(0)?,
            quota: row.int(1)?,
            used: row.int(2)?,
            reserved: row.int(3)?,
            disabled: row.flag(4)? || row.flag(5)?,
            next_seq: row.int(6)?,
            last_created: row.int(7)?,
            turns_due: row.flag(8)?,
        })
    }

    /// The parameters of [`UPDATE`].
    pub(crate) fn values(&self) -> Vec<Value> {
        values![self.id, self.used, self.reserved, self.next_seq, self.last_created, self.turns_due].to_vec()
    }

    /// Bytes that may still be charged or reserved; negative where the quota
    /// was lowered below what is held.
    pub(crate) fn free(&self) -> i64 {
        self.quota - self.used - self.reserved
    }

    /// Changes what is charged and reserved, unless it needs more than there
    /// is; answers whether it did. What needs less always succeeds.
    ///
    /// # Errors
    /// When the account would owe less than nothing: the books are wrong.
    pub(crate) fn pay(&mut self, charged: i64, reserved: i64) -> Result<bool> {
        let more = charged + reserved;
        if more > 0 && more > self.free() {
            return Ok(false);
        }
        self.used += charged;
        self.reserved += reserved;
        if self.used < 0 || self.reserved < 0 {
            return Err(Error::Corrupt(format!("less than nothing as the usage of account {}", self.id)));
        }
        Ok(true)
    }

    /// The refusal of somebody who has no room.
    pub(crate) fn over_quota(&self) -> PinRefusal {
        let sum = self.used + self.reserved;
        PinRefusal::OverQuota { used: sum.unsigned_abs(), quota: self.quota.unsigned_abs() }
    }
}
