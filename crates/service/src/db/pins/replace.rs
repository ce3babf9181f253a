//! Replacing a pin, in one transaction.
//!
//! What the replaced pin held is kept by a `hold` of the new one until that is
//! pinned. Holds do not chain: a pin that replaces one that was never pinned
//! takes over what that one kept. While both are held the larger one is
//! charged: a hold gives its content's charge as `credit` to its successor.
//!
//! The old pin goes first and the new one is then admitted like any other, so
//! that what becomes free counts; a refusal rolls all of it back.

use uuid::Uuid;

use super::{
    admit::admit,
    insert, intern, open_desk, record,
    remove::{Found, concerned, delete_row, find},
};
use crate::db::{
    content::State,
    effects,
    error::Result,
    placement::Phase,
    sql::values,
    tx::Tx,
    types::{AccountId, NewPin, PinRecord},
    unit,
};

/// Replaces the pin `old` of the same account.
pub(crate) async fn replace(tx: &mut Tx, old: Uuid, pin: &NewPin) -> Result<PinRecord> {
    // Read before anything is locked, so that all contents can be locked in
    // their order.
    let concerned = concerned(tx, pin.account, old).await?;
    let contents = intern(tx, std::slice::from_ref(pin), &concerned).await?;
    let new = contents.values().next().copied().ok_or_else(super::not_found)?;
    let found = find(tx, pin.account, old).await?;
    unit::load_holdings(tx, [(pin.account, new)]).await?;
    let kept = kept(tx, &found, new)?;
    let preferred = nodes_of(tx, kept).await?;
    // What the new pin wants is not let go in between.
    guard(tx, pin.account, new, 1);
    delete_row(tx, &found).await?;
    hand_over(tx, &found, pin.requestid, new, kept).await?;
    guard(tx, pin.account, new, -1);
    end_credit(tx, pin.account, new).await?;
    unit::flush(tx).await?;
    let mut desk = open_desk(tx, std::slice::from_ref(pin), &contents).await?;
    desk.preferred = preferred;
    let credit = effects::credit(tx, pin.account, new).await?;
    let row = admit(tx, &mut desk, pin, new, credit)?;
    let mut record = record(tx, pin, &row)?;
    record.info.replaces = kept_text(tx, kept)?;
    insert(tx, &[(pin, row)]).await?;
    pay(tx, pin.account, new).await?;
    if found.content != new {
        effects::let_go(tx, found.content).await?;
    }
    Ok(record)
}

/// The content that the new pin keeps until it is pinned.
fn kept(tx: &mut Tx, old: &Found, new: i64) -> Result<Option<i64>> {
    if tx.unit.content(new)?.state == State::Held {
        return Ok(None);
    }
    let held = !old.ended && tx.unit.content(old.content)?.was_held();
    let kept = if held { Some(old.content) } else { old.keeps };
    Ok(kept.filter(|&kept| kept != new))
}

async fn nodes_of(tx: &mut Tx, content: Option<i64>) -> Result<Vec<i64>> {
    let Some(content) = content else { return Ok(Vec::new()) };
    unit::load_allocations(tx, [content]).await?;
    Ok(tx.unit.allocations_of(content).filter(|a| a.phase == Phase::Stored).map(|a| a.node).collect())
}

fn guard(tx: &mut Tx, account: AccountId, content: i64, by: i64) {
    if let Some(holding) = tx.unit.holding(account, content) {
        holding.pins += by;
    }
}

/// Ends what the old pin held and kept, except for what the new one keeps.
async fn hand_over(tx: &mut Tx, old: &Found, new_pin: Uuid, new: i64, kept: Option<i64>) -> Result<()> {
    let account = old.account;
    match (kept, old.keeps) {
        (Some(kept), Some(before)) if kept == before => {
            let sql = "UPDATE hold SET requestid = $2, successor = $3, credit = 0 WHERE requestid = $1";
            tx.execute(sql, &values![old.requestid, new_pin, new]).await?;
            tx.unit.replaces(new);
        }
        (kept, before) => {
            if let Some(kept) = kept {
                begin_hold(tx, new_pin, account, kept, new).await?;
            }
            if let Some(before) = before {
                effects::end_hold(tx, old.requestid, account, before).await?;
            }
        }
    }
    if !old.ended {
        guard(tx, account, old.content, -1);
    }
    if let Some(kept) = kept {
        give_credit(tx, new_pin, account, kept).await?;
    }
    effects::drop_unused(tx, account, old.content).await?;
    if old.content != new && !old.ended {
        pay(tx, account, old.content).await?;
    }
    Ok(())
}

async fn begin_hold(tx: &mut Tx, pin: Uuid, account: AccountId, content: i64, successor: i64) -> Result<()> {
    if let Some(holding) = tx.unit.holding(account, content) {
        holding.holds += 1;
    }
    let sql = "INSERT INTO hold (requestid, account, content, successor, credit) VALUES ($1, $2, $3, $4, 0)";
    tx.execute(sql, &values![pin, account, content, successor]).await?;
    tx.unit.replaces(successor);
    Ok(())
}

/// What is kept for this pin alone pays for its successor.
async fn give_credit(tx: &mut Tx, pin: Uuid, account: AccountId, kept: i64) -> Result<()> {
    let Some(holding) = tx.unit.holding(account, kept) else { return Ok(()) };
    if holding.pins == 0 && holding.holds == 1 {
        let credit = holding.charged;
        tx.execute("UPDATE hold SET credit = $2 WHERE requestid = $1", &values![pin, credit]).await?;
    }
    Ok(())
}

/// A content that is kept is pinned again: it pays for itself, no more for its
/// successor.
pub(super) async fn end_credit(tx: &mut Tx, account: AccountId, kept: i64) -> Result<()> {
    let only_kept = tx.unit.holding(account, kept).is_some_and(|h| h.pins == 0 && h.holds > 0);
    if !only_kept {
        return Ok(());
    }
    let sql =
        "SELECT requestid, successor, credit FROM hold WHERE content = $1 AND account = $2 AND credit > 0";
    for row in tx.query(sql, &values![kept, account]).await? {
        let (pin, successor, credit) = (row.uuid(0)?, row.int(1)?, row.int(2)?);
        unit::load_contents(tx, [successor]).await?;
        unit::load_holdings(tx, [(account, successor)]).await?;
        let sql = "UPDATE hold SET credit = $2 WHERE requestid = $1";
        tx.execute(sql, &values![pin, 0_i64]).await?;
        if !effects::reprice(tx, account, successor).await? {
            tx.execute(sql, &values![pin, credit]).await?;
            return Err(tx.unit.purse(account)?.over_quota().into());
        }
    }
    Ok(())
}

async fn pay(tx: &mut Tx, account: AccountId, content: i64) -> Result<()> {
    if effects::reprice(tx, account, content).await? {
        return Ok(());
    }
    Err(tx.unit.purse(account)?.over_quota().into())
}

fn kept_text(tx: &mut Tx, kept: Option<i64>) -> Result<Option<String>> {
    kept.map(|kept| tx.unit.content(kept).map(|content| content.cid.clone())).transpose()
}
