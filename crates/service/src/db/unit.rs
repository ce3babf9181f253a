//! What a transaction has read and locked, and what it changes.
//!
//! Rows that a transaction decides about are loaded (and locked) once, changed
//! in memory and written by [`flush`] before the commit: contents, accounts,
//! holdings and allocations. The decisions themselves are plain functions over
//! a [`Unit`], without a database. Whatever asks the database about many of
//! these rows flushes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pinfold_core::status::Status;

use super::{
    content::{self, Content},
    effects,
    error::{AccountRefusal, Error, Result},
    holding::{self, Holding},
    ledger::{self, Purse},
    order::Order,
    placement::{self, Allocation},
    sql::{Value, values},
    tally::{self, Deltas},
    tx::Tx,
    types::{AccountId, Node},
};

/// A row: as it is stored, and as it shall be.
#[derive(Clone, Debug)]
pub(crate) struct Slot<T> {
    stored: Option<T>,
    pub(crate) value: Option<T>,
}

impl<T: Clone + PartialEq> Slot<T> {
    fn loaded(value: Option<T>) -> Self {
        Self { stored: value.clone(), value }
    }

    fn is_changed(&self) -> bool {
        self.stored != self.value
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub(crate) order: Order,
    pub(crate) contents: BTreeMap<i64, Slot<Content>>,
    pub(crate) accounts: BTreeMap<AccountId, Slot<Purse>>,
    pub(crate) holdings: BTreeMap<(AccountId, i64), Slot<Holding>>,
    pub(crate) allocations: BTreeMap<(i64, i64), Slot<Allocation>>,
    /// Contents whose allocations are all loaded.
    placed: BTreeSet<i64>,
    pub(crate) nodes: Option<Arc<Vec<Node>>>,
    pub(crate) deltas: Deltas,
    /// Contents whose holdings are all loaded.
    whole: BTreeSet<i64>,
    /// Contents that no pin has in the place of another.
    no_successors: BTreeSet<i64>,
    /// Statuses that pins of a content and an account are to have.
    pub(crate) shown: BTreeMap<(i64, AccountId), Status>,
    /// Contents and nodes that need not be told of them.
    acknowledged: BTreeSet<(i64, i64)>,
}

impl Unit {
    /// A content that was loaded.
    pub(crate) fn content(&mut self, id: i64) -> Result<&mut Content> {
        let slot = self.contents.get_mut(&id).and_then(|slot| slot.value.as_mut());
        slot.ok_or_else(|| Error::Corrupt(format!("no content {id}")))
    }

    /// An account that was loaded.
    pub(crate) fn purse(&mut self, id: AccountId) -> Result<&mut Purse> {
        let slot = self.accounts.get_mut(&id).and_then(|slot| slot.value.as_mut());
        slot.ok_or_else(|| AccountRefusal::NotFound.into())
    }

    /// A holding that was loaded, if it exists.
    pub(crate) fn holding(&mut self, account: AccountId, content: i64) -> Option<&mut Holding> {
        self.holdings.get_mut(&(account, content)).and_then(|slot| slot.value.as_mut())
    }

    /// Puts a new holding beside the loaded ones.
    pub(crate) fn insert_holding(&mut self, holding: Holding) {
        let key = (holding.account, holding.content);
        self.holdings.entry(key).or_insert(Slot { stored: None, value: None }).value = Some(holding);
    }

    /// Puts a content that was just read under a lock beside the loaded ones.
    pub(crate) fn loaded_content(&mut self, content: Content) {
        self.contents.entry(content.id).or_insert_with(|| Slot::loaded(Some(content)));
    }

    /// The allocations of a content, which were loaded.
    pub(crate) fn allocations_of(&mut self, content: i64) -> impl Iterator<Item = &mut Allocation> {
        let range = self.allocations.range_mut((content, i64::MIN)..=(content, i64::MAX));
        range.filter_map(|(_, slot)| slot.value.as_mut())
    }

    /// Puts an allocation beside the loaded ones, or in the place of one.
    pub(crate) fn put_allocation(&mut self, allocation: Allocation) {
        let key = (allocation.content, allocation.node);
        self.allocations.entry(key).or_insert(Slot { stored: None, value: None }).value = Some(allocation);
    }

    /// Removes an allocation that was loaded.
    pub(crate) fn remove_allocation(&mut self, content: i64, node: i64) {
        if let Some(slot) = self.allocations.get_mut(&(content, node)) {
            slot.value = None;
        }
    }

    /// Puts all holdings of a locked content beside the loaded ones.
    pub(crate) fn loaded_holdings(&mut self, content: i64, holdings: Vec<Holding>) {
        for holding in holdings {
            let key = (holding.account, content);
            self.holdings.entry(key).or_insert_with(|| Slot::loaded(Some(holding)));
        }
        self.whole.insert(content);
    }

    /// Whether all holdings of a content are loaded.
    pub(crate) fn is_whole(&self, content: i64) -> bool {
        self.whole.contains(&content)
    }

    /// The loaded holdings of a content, in the order of their accounts.
    pub(crate) fn holdings_of(&self, content: i64) -> impl Iterator<Item = &Holding> {
        let of_content = self.holdings.iter().filter(move |(key, _)| key.1 == content);
        of_content.filter_map(|(_, slot)| slot.value.as_ref())
    }

    /// Notes that no pin of a content replaces another.
    pub(crate) fn replaces_none(&mut self, content: i64) {
        self.no_successors.insert(content);
    }

    /// Whether no pin of a content is known to replace another.
    pub(crate) fn is_no_successor(&self, content: i64) -> bool {
        self.no_successors.contains(&content)
    }

    /// Notes that a pin of a content replaces another.
    pub(crate) fn replaces(&mut self, content: i64) {
        self.no_successors.remove(&content);
    }

    /// Gives the account's pins of a content a status when changes are written.
    pub(crate) fn show(&mut self, content: i64, account: AccountId, status: Status) {
        self.shown.insert((content, account), status);
    }

    /// Notes that a node knows what it is to hold of a content.
    pub(crate) fn acknowledged(&mut self, content: i64, node: i64) {
        self.acknowledged.insert((content, node));
    }

    /// Says that a content has no allocations, without asking.
    pub(crate) fn not_placed(&mut self, content: i64) {
        self.placed.insert(content);
    }
}

/// Loads and locks contents, in ascending order. Those that are gone are left
/// out.
pub(crate) async fn load_contents(tx: &mut Tx, ids: impl IntoIterator<Item = i64>) -> Result<()> {
    let mut wanted: BTreeSet<i64> = ids.into_iter().filter(|id| !tx.unit.contents.contains_key(id)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !tx.is_sqlite() {
        tx.unit.order.lock_contents(&mut wanted)?;
    }
    read_contents(tx, &wanted).await
}

/// Locks what an earlier attempt of the transaction has needed too late.
pub(crate) async fn load_ahead(tx: &mut Tx) -> Result<()> {
    if tx.unit.order.has_no_contents() {
        return Ok(());
    }
    let mut wanted = BTreeSet::new();
    tx.unit.order.lock_contents(&mut wanted)?;
    read_contents(tx, &wanted).await
}

/// Loads contents that the transaction has locked without waiting for them.
pub(crate) async fn load_locked_contents(tx: &mut Tx, ids: impl IntoIterator<Item = i64>) -> Result<()> {
    let wanted: BTreeSet<i64> = ids.into_iter().filter(|id| !tx.unit.contents.contains_key(id)).collect();
    tx.unit.order.locked_contents(&wanted);
    read_contents(tx, &wanted).await
}

async fn read_contents(tx: &mut Tx, wanted: &BTreeSet<i64>) -> Result<()> {
    let lists: Vec<Vec<Value>> = wanted.iter().map(|&id| values![id].to_vec()).collect();
    let sql = format!("SELECT {} FROM content WHERE id = $1 FOR UPDATE", content::COLUMNS);
    for rows in tx.query_many(&sql, &lists).await? {
        if let Some(row) = rows.first() {
            tx.unit.loaded_content(Content::read(row, 0)?);
        }
    }
    Ok(())
}

/// Loads and locks accounts, in ascending order. Those that are gone are left
/// out.
pub(crate) async fn load_accounts(tx: &mut Tx, ids: impl IntoIterator<Item = AccountId>) -> Result<()> {
    let mut wanted: BTreeSet<i64> = ids.into_iter().filter(|id| !tx.unit.accounts.contains_key(id)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !tx.is_sqlite() {
        load_ahead(tx).await?;
        tx.unit.order.lock_accounts(&mut wanted)?;
    }
    let lists: Vec<Vec<Value>> = wanted.iter().map(|&id| values![id].to_vec()).collect();
    for rows in tx.query_many(ledger::LOCK, &lists).await? {
        if let Some(row) = rows.first() {
            let purse = Purse::read(row)?;
            tx.unit.accounts.insert(purse.id, Slot::loaded(Some(purse)));
        }
    }
    Ok(())
}

/// Loads holdings of locked accounts.
pub(crate) async fn load_holdings(
    tx: &mut Tx,
    keys: impl IntoIterator<Item = (AccountId, i64)>,
) -> Result<()> {
    let wanted: BTreeSet<(i64, i64)> =
        keys.into_iter().filter(|key| !tx.unit.holdings.contains_key(key)).collect();
    let lists: Vec<Vec<Value>> =
        wanted.iter().map(|&(account, content)| values![account, content].to_vec()).collect();
    let found = tx.query_many(holding::SELECT, &lists).await?;
    for (key, rows) in wanted.into_iter().zip(found) {
        let holding = rows.first().map(Holding::read).transpose()?;
        tx.unit.holdings.insert(key, Slot::loaded(holding));
    }
    Ok(())
}

/// Loads all allocations of locked contents.
pub(crate) async fn load_allocations(tx: &mut Tx, contents: impl IntoIterator<Item = i64>) -> Result<()> {
    let wanted: BTreeSet<i64> = contents.into_iter().filter(|id| !tx.unit.placed.contains(id)).collect();
    let lists: Vec<Vec<Value>> = wanted.iter().map(|&id| values![id].to_vec()).collect();
    for row in tx.query_many(placement::SELECT, &lists).await?.into_iter().flatten() {
        let allocation = Allocation::read(&row)?;
        let key = (allocation.content, allocation.node);
        tx.unit.allocations.entry(key).or_insert_with(|| Slot::loaded(Some(allocation)));
    }
    tx.unit.placed.extend(wanted);
    Ok(())
}

/// Writes what changed, in the order in which rows are locked.
pub(crate) async fn flush(tx: &mut Tx) -> Result<()> {
    effects::write_statuses(tx).await?;
    let unit = &mut tx.unit;
    let changes = [
        (
            holding::DELETE,
            changed(&mut unit.holdings, |key, new| new.is_none().then(|| values![key.0, key.1])),
        ),
        (
            placement::DELETE,
            changed(&mut unit.allocations, |key, new| new.is_none().then(|| values![key.0, key.1])),
        ),
        (content::UPDATE, changed(&mut unit.contents, |_, new| new.map(Content::values))),
        (ledger::UPDATE, changed(&mut unit.accounts, |_, new| new.map(Purse::values))),
        (holding::UPSERT, changed(&mut unit.holdings, |_, new| new.map(Holding::values))),
        (placement::UPSERT, changed(&mut unit.allocations, |_, new| new.map(Allocation::values))),
        (tally::ADD, tally::sums(&mut unit.deltas)),
    ];
    let acknowledged = std::mem::take(&mut unit.acknowledged);
    tx.execute_all(&changes).await?;
    let acknowledged: Vec<_> =
        acknowledged.into_iter().map(|(content, node)| values![content, node].to_vec()).collect();
    tx.execute_many(placement::ACKNOWLEDGE, &acknowledged).await?;
    Ok(())
}

/// The parameters for the changed rows that `values` wants to write; these
/// count as stored from then on.
fn changed<K: Copy + Ord, T: Clone + PartialEq, V: Into<Vec<Value>>>(
    slots: &mut BTreeMap<K, Slot<T>>,
    values: impl Fn(K, Option<&T>) -> Option<V>,
) -> Vec<Vec<Value>> {
    let mut lists = Vec::new();
    for (key, slot) in slots.iter_mut().filter(|(_, slot)| slot.is_changed()) {
        if let Some(list) = values(*key, slot.value.as_ref()) {
            lists.push(list.into());
            slot.stored = slot.value.clone();
        }
    }
    lists
}
