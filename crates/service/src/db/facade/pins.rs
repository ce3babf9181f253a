//! Pins and their lists.

use uuid::Uuid;

use crate::db::{
    AccountId, Database, ListQuery, MAX_ROWS, NewPin, Page, PinRecord, error::Result, list, pins, records,
    tx::with, validate,
};
#[cfg(doc)]
use crate::db::{Error, PinRefusal};

impl Database {
    /// Stores a pin durably, with its content, charges and allocations in one
    /// transaction.
    ///
    /// # Errors
    /// [`Error::Pin`] with the refusal; nothing is stored then.
    pub async fn add_pin(&self, pin: NewPin) -> Result<PinRecord> {
        validate::pin(&pin)?;
        self.engine.add(pin).await
    }

    /// Replaces the pin `old` of the same account in one transaction. What `old`
    /// held is kept until the new pin is pinned.
    ///
    /// # Errors
    /// As [`Self::add_pin`], and [`PinRefusal::NotFound`]; of two simultaneous
    /// replacements of one pin, one gets it.
    pub async fn replace_pin(&self, old: Uuid, pin: NewPin) -> Result<PinRecord> {
        validate::pin(&pin)?;
        self.engine.write(with(pin, move |tx, pin| Box::pin(pins::replace(tx, old, pin)))).await
    }

    /// Removes a pin, and frees its quota where it was the account's last of its
    /// content.
    ///
    /// # Errors
    /// [`PinRefusal::NotFound`] when the account has no such pin.
    pub async fn delete_pin(&self, account: AccountId, requestid: Uuid) -> Result<()> {
        self.engine.write(move |tx| Box::pin(pins::remove(tx, account, requestid))).await
    }

    /// A pin of the account, if it exists.
    pub async fn pin(&self, account: AccountId, requestid: Uuid) -> Result<Option<PinRecord>> {
        self.engine.look_up(move |tx| Box::pin(records::of_account(tx, account, requestid))).await
    }

    /// Those of the given pins that exist (at most 1,000 are looked up), in any
    /// order: one read for all subscribers of live events.
    pub async fn pins(&self, requestids: &[Uuid]) -> Result<Vec<PinRecord>> {
        let requestids: Vec<Uuid> = requestids.iter().copied().take(MAX_ROWS as usize).collect();
        self.engine.read(with(requestids, |tx, requestids| Box::pin(records::some(tx, requestids)))).await
    }

    /// A page of an account's pins and their count, in one snapshot.
    ///
    /// # Errors
    /// [`Error::QueryTooLong`] when filters by name, meta or CID take too long.
    pub async fn list(&self, account: AccountId, query: ListQuery) -> Result<Page> {
        validate::query(&query)?;
        self.engine.read(with(query, move |tx, query| Box::pin(list::list(tx, account, query)))).await
    }
}
