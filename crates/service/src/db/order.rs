//! The order of locks, on PostgreSQL.
//!
//! Every transaction locks rows in one order: the row of the node that asks;
//! keys of new contents, ascending; contents, ascending; accounts, ascending;
//! then what belongs to them (pins, holdings, holds, allocations, tallies),
//! which is only touched under their locks; strays by node and content; and
//! properties. So no two transactions ever wait for each other.
//!
//! Contents and accounts are locked through [`super::unit`] alone, which asks
//! [`Order`]. What a transaction finds out too late that it needs, such as the
//! content that a replacing pin has kept, is not locked out of turn: the
//! transaction is rolled back and repeated, and then locks it in its place.

use std::collections::BTreeSet;

use super::{
    error::{Error, Result},
    types::AccountId,
};

/// What a transaction has locked, and what it shall lock besides what it asks
/// for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    last_content: Option<i64>,
    last_account: Option<AccountId>,
    /// Found to be needed by an earlier attempt, and locked with the first.
    contents: BTreeSet<i64>,
    accounts: BTreeSet<AccountId>,
    /// Locks are taken as they come: what had to be repeated too often runs at
    /// last, and PostgreSQL ends a deadlock.
    any: bool,
}

impl Order {
    /// The order of the next attempt of a transaction that ended with
    /// [`Error::Raced`]; `any` for the last one.
    pub(crate) fn next(self, any: bool) -> Self {
        Self { last_content: None, last_account: None, any, ..self }
    }

    /// Whether nothing is to be locked besides what is asked for.
    pub(crate) fn has_no_contents(&self) -> bool {
        self.contents.is_empty() || self.last_content.is_some()
    }

    /// Notes that contents are locked now, and adds those that an earlier
    /// attempt has needed.
    ///
    /// # Errors
    /// [`Error::Raced`] when they had to be locked before.
    pub(crate) fn lock_contents(&mut self, wanted: &mut BTreeSet<i64>) -> Result<()> {
        if self.last_content.is_none() {
            wanted.extend(&self.contents);
        }
        let late = self.last_account.is_some() || precedes(wanted, self.last_content);
        if late && !self.any && !wanted.is_empty() {
            self.contents.append(wanted);
            return Err(Error::Raced);
        }
        self.locked_contents(wanted);
        Ok(())
    }

    /// Notes contents that were locked without waiting, which may be done in
    /// any order.
    pub(crate) fn locked_contents(&mut self, contents: &BTreeSet<i64>) {
        self.last_content = self.last_content.max(contents.last().copied());
    }

    /// Notes that accounts are locked now, and adds those that an earlier
    /// attempt has needed.
    ///
    /// # Errors
    /// [`Error::Raced`] when they had to be locked before.
    pub(crate) fn lock_accounts(&mut self, wanted: &mut BTreeSet<AccountId>) -> Result<()> {
        if self.last_account.is_none() {
            wanted.extend(&self.accounts);
        }
        if precedes(wanted, self.last_account) && !self.any {
            self.accounts.append(wanted);
            return Err(Error::Raced);
        }
        self.last_account = self.last_account.max(wanted.last().copied());
        Ok(())
    }
}

fn precedes(wanted: &BTreeSet<i64>, last: Option<i64>) -> bool {
    wanted.first().zip(last).is_some_and(|(first, last)| *first < last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(ids: [i64; N]) -> BTreeSet<i64> {
        ids.into()
    }

    #[test]
    fn contents_ascend_and_come_before_accounts() {
        let mut order = Order::default();
        order.lock_contents(&mut set([2, 5])).unwrap();
        order.lock_contents(&mut set([7])).unwrap();
        assert!(matches!(order.lock_contents(&mut set([6])), Err(Error::Raced)));
        let mut order = Order::default();
        order.lock_accounts(&mut set([1])).unwrap();
        order.lock_contents(&mut set([])).unwrap();
        assert!(matches!(order.lock_contents(&mut set([9])), Err(Error::Raced)));
    }

    #[test]
    fn accounts_ascend() {
        let mut order = Order::default();
        order.lock_accounts(&mut set([2, 5])).unwrap();
        order.lock_accounts(&mut set([6])).unwrap();
        assert!(matches!(order.lock_accounts(&mut set([4])), Err(Error::Raced)));
    }

    #[test]
    fn what_came_too_late_is_locked_first_the_next_time() {
        let mut order = Order::default();
        order.lock_contents(&mut set([5])).unwrap();
        order.lock_accounts(&mut set([9])).unwrap();
        order.lock_contents(&mut set([2])).unwrap_err();
        let mut order = order.next(false);
        assert!(!order.has_no_contents());
        let mut wanted = set([5]);
        order.lock_contents(&mut wanted).unwrap();
        assert_eq!(wanted, set([2, 5]));
        assert!(order.has_no_contents());
        order.lock_accounts(&mut set([9])).unwrap();
        order.lock_accounts(&mut set([1])).unwrap_err();
        let mut order = order.next(false);
        let mut wanted = set([9]);
        order.lock_accounts(&mut wanted).unwrap();
        assert_eq!(wanted, set([1, 9]));
    }

    #[test]
    fn the_last_attempt_takes_locks_as_they_come() {
        let mut order = Order::default().next(true);
        order.lock_accounts(&mut set([3])).unwrap();
        order.lock_contents(&mut set([2])).unwrap();
        order.lock_contents(&mut set([1])).unwrap();
        order.lock_accounts(&mut set([1])).unwrap();
    }
}
