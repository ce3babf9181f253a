//! Whether a pin is accepted, and what it becomes: decided in memory, over
//! rows that the transaction has locked.

use std::{collections::BTreeMap, sync::Arc};

use pinfold_core::{
    quota::MIN_BILLED,
    status::{Reason, Status},
};

use super::is_queued;
use crate::db::{
    content::{Content, amount},
    error::{PinRefusal, Result},
    holding::{Holding, Turn},
    ledger::Purse,
    nodes, placement,
    tx::Tx,
    types::{AccountId, MAX_PINS_OF_A_ROOT, Millis, NewPin, Node},
};

/// How far `created` may run ahead of the clock, in ms.
const AHEAD_MS: i64 = 3_600_000;

/// What is counted before pins are decided about, and as they are accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk {
    /// Queued pins of each account.
    pub(crate) queued: BTreeMap<AccountId, u64>,
    /// Contents that are fetched on behalf of each account.
    pub(crate) active: BTreeMap<AccountId, u64>,
    /// Pins of each account and content.
    pub(crate) roots: BTreeMap<(AccountId, i64), u64>,
    /// Every node.
    pub(crate) nodes: Arc<Vec<Node>>,
    /// Nodes that come first, because they hold what is replaced.
    pub(crate) preferred: Vec<i64>,
}

/// What an accepted pin becomes.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) content: i64,
    pub(crate) created: Millis,
    pub(crate) seq: i64,
    pub(crate) status: Status,
    /// Why it failed at once: its content is known to be impossible.
    pub(crate) failure: Option<Reason>,
    /// Whether a node has something new to do.
    pub(crate) work: bool,
}

/// Decides about one pin; `credit` bytes are paid by what it replaces.
pub(crate) fn admit(
    tx: &mut Tx,
    desk: &mut Desk,
    pin: &NewPin,
    content: i64,
    credit: i64,
) -> Result<Accepted> {
    let facts = check(tx, desk, pin, content)?;
    let status = facts.status();
    if is_queued(status) && desk.queued.get(&pin.account).copied().unwrap_or(0) >= tx.settings.max_queued {
        let queued = desk.queued.get(&pin.account).copied().unwrap_or(0);
        return Err(PinRefusal::QueueFull { queued }.into());
    }
    let failure = (status == Status::Failed).then(|| facts.failure.unwrap_or(Reason::InvalidBlock));
    let now = tx.now();
    let held = holds_already(tx, pin, content);
    charge(tx.unit.purse(pin.account)?, &facts, held, credit, now)?;
    if failure.is_none() {
        hold(tx, pin, &facts, credit)?;
    }
    let (created, seq) = number(tx.unit.purse(pin.account)?, now);
    tx.unit.deltas.add(pin.account, seq, status);
    *desk.roots.entry((pin.account, content)).or_default() += 1;
    let work = failure.is_none() && begin(tx, desk, pin, content)?;
    *desk.queued.entry(pin.account).or_default() += u64::from(is_queued(status));
    Ok(Accepted { content, created, seq, status, failure, work })
}

/// The refusals that do not depend on amounts.
fn check(tx: &mut Tx, desk: &Desk, pin: &NewPin, content: i64) -> Result<Content> {
    let purse = tx.unit.purse(pin.account).map_err(|_| PinRefusal::AccountDisabled)?;
    if purse.disabled {
        return Err(PinRefusal::AccountDisabled.into());
    }
    let facts = tx.unit.content(content)?.clone();
    if facts.denied.is_some() {
        return Err(PinRefusal::Denied.into());
    }
    // Even a pin that needs no node has to name one to its client.
    if !desk.nodes.iter().any(|node| node.hello.operated) {
        return Err(PinRefusal::NoNode.into());
    }
    if desk.roots.get(&(pin.account, content)).is_some_and(|&pins| pins >= MAX_PINS_OF_A_ROOT) {
        return Err(PinRefusal::TooManyOfRoot.into());
    }
    Ok(facts)
}

fn holds_already(tx: &mut Tx, pin: &NewPin, content: i64) -> bool {
    tx.unit.holding(pin.account, content).is_some()
}

/// Refuses what the account has no room for, and what comes too fast. An
/// account must have room for the smallest content where the size is not known
/// yet.
fn charge(purse: &mut Purse, content: &Content, held: bool, credit: i64, now: Millis) -> Result<()> {
    if purse.last_created >= now + AHEAD_MS {
        return Err(PinRefusal::TooFast.into());
    }
    if held || content.inline {
        return Ok(());
    }
    let (charged, reserved) = content.due(credit);
    let needed = (charged + reserved).max(amount(MIN_BILLED) - credit);
    if needed > 0 && needed > purse.free() {
        return Err(purse.over_quota().into());
    }
    Ok(())
}

/// Adds the pin to the account's holding of the content, which is charged once.
fn hold(tx: &mut Tx, pin: &NewPin, content: &Content, credit: i64) -> Result<()> {
    if let Some(holding) = tx.unit.holding(pin.account, content.id) {
        holding.pins += 1;
        return Ok(());
    }
    let (charged, reserved) = content.due(credit);
    if !tx.unit.purse(pin.account)?.pay(charged, reserved)? {
        return Err(tx.unit.purse(pin.account)?.over_quota().into());
    }
    let (account, since) = (pin.account, tx.now());
    let turn = Turn::Done;
    tx.unit.insert_holding(Holding {
        account,
        content: content.id,
        charged,
        reserved,
        pins: 1,
        holds: 0,
        turn,
        since,
    });
    Ok(())
}

/// `created` and `seq` of the account's next pin.
fn number(purse: &mut Purse, now: Millis) -> (Millis, i64) {
    purse.last_created = now.max(purse.last_created + 1);
    purse.next_seq += 1;
    (purse.last_created, purse.next_seq - 1)
}

/// Has the content fetched, now or when it is its turn; answers whether a node
/// has something new to do.
fn begin(tx: &mut Tx, desk: &mut Desk, pin: &NewPin, content: i64) -> Result<bool> {
    let facts = tx.unit.content(content)?;
    if !facts.is_unfinished() || facts.inline {
        // A copy that was lost may be fetched again at the moment.
        return Ok(!pin.origins.is_empty() && nodes::tell_again(tx, content));
    }
    let underway = tx.unit.allocations_of(content).any(|allocation| allocation.is_wanted());
    let active = desk.active.entry(pin.account).or_default();
    let room = *active < u64::from(tx.settings.max_pinning.max(1));
    let Some(holding) = tx.unit.holding(pin.account, content) else { return Ok(false) };
    if holding.turn == Turn::Done {
        holding.turn = match (room, underway) {
            (true, _) => Turn::Active,
            (false, true) => Turn::Aside,
            (false, false) => Turn::Waiting,
        };
        *active += u64::from(holding.turn == Turn::Active);
    }
    if underway {
        return Ok(!pin.origins.is_empty() && nodes::tell_again(tx, content));
    }
    if holding.turn == Turn::Waiting {
        return Ok(false);
    }
    let (settings, now) = (Arc::clone(&tx.settings), tx.now());
    placement::place(&mut tx.unit, &settings, &desk.nodes, content, &desk.preferred, now)
}
