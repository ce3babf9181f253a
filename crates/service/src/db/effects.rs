//! What follows for pins and accounts when a fact about a content changes.
//!
//! [`show`] brings every account that holds a content up to date with it: the
//! statuses of its pins, what it is charged, the contents that its replacing
//! pins kept. It can be repeated without harm. A content with many pins is
//! shown in parts of [`PART`]: the first in the transaction of the fact, the
//! others by a job, from where `content.follow` points.

use pinfold_core::status::{Reason, Status};

use super::{
    content::State,
    error::Result,
    holding::Turn,
    pins::OF_ROOT,
    placement,
    sql::{Value, values},
    tally,
    tx::Tx,
    types::{AccountId, Millis},
    unit,
};

/// Pins that one transaction changes because of one content.
pub(crate) const PART: i64 = 1_000;

/// Shows a content's facts in its pins, from the first account on.
pub(crate) async fn show(tx: &mut Tx, content: i64) -> Result<()> {
    show_after(tx, content, i64::MIN).await
}

/// Shows a content's facts in the pins of accounts above `after`.
pub(crate) async fn show_after(tx: &mut Tx, content: i64, after: AccountId) -> Result<()> {
    let (accounts, more) = part(tx, content, after).await?;
    unit::load_accounts(tx, accounts.iter().copied()).await?;
    unit::load_holdings(tx, accounts.iter().map(|&account| (account, content))).await?;
    tx.unit.content(content)?.follow = if more { accounts.last().copied() } else { None };
    for account in accounts {
        apply(tx, account, content).await?;
    }
    tx.changed(content);
    if !more && tx.unit.content(content)?.state == State::Failed {
        let_go(tx, content).await?;
    }
    Ok(())
}

/// The accounts of the next part, and whether there are more.
async fn part(tx: &mut Tx, content: i64, after: AccountId) -> Result<(Vec<AccountId>, bool)> {
    let holders = holders(tx, content, after).await?;
    let (mut accounts, mut pins) = (Vec::new(), 0);
    for (account, more) in holders {
        pins += more.max(1);
        if pins > PART && !accounts.is_empty() {
            return Ok((accounts, true));
        }
        accounts.push(account);
    }
    Ok((accounts, false))
}

/// Accounts above `after` that have a content, each with its pins of it: one
/// more than a part can have.
async fn holders(tx: &mut Tx, content: i64, after: AccountId) -> Result<Vec<(AccountId, i64)>> {
    if tx.unit.is_whole(content) {
        let holders = tx.unit.holdings_of(content).filter(|holding| holding.account > after);
        return Ok(holders.map(|holding| (holding.account, holding.pins)).collect());
    }
    unit::flush(tx).await?;
    let sql = "SELECT account, pins FROM holding WHERE content = $1 AND account > $2
        ORDER BY account LIMIT $3";
    let rows = tx.query(sql, &values![content, after, PART + 1]).await?;
    rows.iter().map(|row| Ok((row.int(0)?, row.int(1)?))).collect()
}

/// Brings one account up to date with a content.
async fn apply(tx: &mut Tx, account: AccountId, content: i64) -> Result<()> {
    if tx.unit.holding(account, content).is_none_or(|holding| holding.pins == 0) {
        return Ok(());
    }
    let facts = tx.unit.content(content)?;
    let (state, status) = (facts.state, facts.status());
    if state == State::Failed {
        let (reason, detail) = (facts.failure.unwrap_or(Reason::InvalidBlock), facts.detail.clone());
        return fail(tx, account, content, reason, detail.as_deref()).await;
    }
    if state == State::Held {
        end_holds(tx, account, content).await?;
        end_turn(tx, account, content).await?;
    }
    if reprice(tx, account, content).await? {
        tx.unit.show(content, account, status);
        Ok(())
    } else {
        fail(tx, account, content, Reason::OverQuota, None).await
    }
}

/// Charges and reserves what the account now owes for the content; answers
/// whether its quota sufficed. Nothing changes where it did not.
pub(crate) async fn reprice(tx: &mut Tx, account: AccountId, content: i64) -> Result<bool> {
    let credit = credit(tx, account, content).await?;
    let (charged, reserved) = tx.unit.content(content)?.due(credit);
    let Some(holding) = tx.unit.holding(account, content) else { return Ok(true) };
    let change = (charged - holding.charged, reserved - holding.reserved);
    if !tx.unit.purse(account)?.pay(change.0, change.1)? {
        return Ok(false);
    }
    if let Some(holding) = tx.unit.holding(account, content) {
        (holding.charged, holding.reserved) = (charged, reserved);
    }
    Ok(true)
}

/// What replaced contents pay of this one.
pub(crate) async fn credit(tx: &mut Tx, account: AccountId, content: i64) -> Result<i64> {
    if tx.unit.is_no_successor(content) {
        return Ok(0);
    }
    let sql = "SELECT CAST(COALESCE(SUM(credit), 0) AS BIGINT) FROM hold
        WHERE successor = $1 AND account = $2";
    tx.first(sql, &values![content, account]).await?.map_or(Ok(0), |row| row.int(0))
}

/// Gives pins the status that was found for them, those apart that failed by
/// themselves.
pub(crate) async fn write_statuses(tx: &mut Tx) -> Result<()> {
    let shown = std::mem::take(&mut tx.unit.shown);
    let lists: Vec<Vec<Value>> = shown
        .iter()
        .map(|(&(content, account), &status)| values![content, account, tally::number(status)].to_vec())
        .collect();
    let changed = format!("WHERE {OF_ROOT} AND failure IS NULL AND status <> $3");
    let found = tx.query_many(&format!("SELECT seq, status FROM pin {changed}"), &lists).await?;
    let mut updates = Vec::new();
    for (((&(_, account), &status), list), rows) in shown.iter().zip(lists).zip(found) {
        for row in &rows {
            let seq = row.int(0)?;
            tx.unit.deltas.remove(account, seq, tally::status(row.int(1)?)?);
            tx.unit.deltas.add(account, seq, status);
        }
        if !rows.is_empty() {
            updates.push(list);
        }
    }
    tx.execute_many(&format!("UPDATE pin SET status = $3 {changed}"), &updates).await?;
    Ok(())
}

/// Ends the account's pins of a content, for good.
pub(crate) async fn fail(
    tx: &mut Tx,
    account: AccountId,
    content: i64,
    reason: Reason,
    detail: Option<&str>,
) -> Result<()> {
    fail_older(tx, account, content, Millis::MAX, reason, detail).await
}

/// Ends those of the account's pins of a content that were created up to
/// `limit`.
pub(crate) async fn fail_older(
    tx: &mut Tx,
    account: AccountId,
    content: i64,
    limit: Millis,
    reason: Reason,
    detail: Option<&str>,
) -> Result<()> {
    write_statuses(tx).await?;
    let chosen = format!("WHERE {OF_ROOT} AND created <= $3 AND failure IS NULL");
    let rows =
        tx.query(&format!("SELECT seq, status FROM pin {chosen}"), &values![content, account, limit]).await?;
    for row in &rows {
        let seq = row.int(0)?;
        tx.unit.deltas.remove(account, seq, tally::status(row.int(1)?)?);
        tx.unit.deltas.add(account, seq, Status::Failed);
    }
    let failed = tally::number(Status::Failed);
    tx.execute(
        &format!("UPDATE pin SET status = $4, failure = $5, detail = $6 {chosen}"),
        &values![content, account, limit, failed, reason.as_str(), detail],
    )
    .await?;
    if let Some(holding) = tx.unit.holding(account, content) {
        holding.pins -= rows.len() as i64;
    }
    tx.changed(content);
    if end_credits(tx, account, content).await? && !reprice(tx, account, content).await? {
        return Box::pin(fail(tx, account, content, Reason::OverQuota, None)).await;
    }
    drop_unused(tx, account, content).await
}

/// What a failed pin keeps pays for itself from then on; answers whether the
/// account's other pins of the content now pay more for it.
async fn end_credits(tx: &mut Tx, account: AccountId, content: i64) -> Result<bool> {
    if tx.unit.is_no_successor(content) {
        return Ok(false);
    }
    let sql = format!(
        "UPDATE hold SET credit = 0 WHERE successor = $1 AND account = $2 AND credit > 0 AND requestid IN
        (SELECT requestid FROM pin WHERE {OF_ROOT} AND failure IS NOT NULL)"
    );
    let ended = tx.execute(&sql, &values![content, account]).await?;
    Ok(ended > 0 && tx.unit.holding(account, content).is_some_and(|holding| holding.pins > 0))
}

/// Gives up a holding that no pin and no hold needs: refunds it, and lets the
/// content go when nobody else wants it.
pub(crate) async fn drop_unused(tx: &mut Tx, account: AccountId, content: i64) -> Result<()> {
    let Some(holding) = tx.unit.holding(account, content) else { return Ok(()) };
    if holding.pins > 0 {
        return Ok(());
    }
    let unused = holding.holds == 0;
    let (charged, reserved) = (holding.charged, holding.reserved);
    end_turn(tx, account, content).await?;
    if !unused {
        return Ok(());
    }
    tx.unit.purse(account)?.pay(-charged, -reserved)?;
    if let Some(slot) = tx.unit.holdings.get_mut(&(account, content)) {
        slot.value = None;
    }
    let_go(tx, content).await
}

/// Lets a content go when no account holds it, and forgets it when no pin
/// names it either.
pub(crate) async fn let_go(tx: &mut Tx, content: i64) -> Result<()> {
    unit::flush(tx).await?;
    let wanted = tx.first("SELECT 1 FROM holding WHERE content = $1 LIMIT 1", &values![content]).await?;
    if wanted.is_some() {
        return Ok(());
    }
    unit::load_contents(tx, [content]).await?;
    unit::load_allocations(tx, [content]).await?;
    if !tx.unit.contents.contains_key(&content) {
        return Ok(());
    }
    tx.unit.content(content)?.reset();
    if placement::release(&mut tx.unit, content) {
        tx.work(content);
    }
    forget(tx, content).await
}

/// Removes the row of a content that nothing refers to.
pub(crate) async fn forget(tx: &mut Tx, content: i64) -> Result<()> {
    unit::flush(tx).await?;
    let sql = "DELETE FROM content WHERE id = $1
        AND NOT EXISTS (SELECT 1 FROM pin WHERE content = $1)
        AND NOT EXISTS (SELECT 1 FROM allocation WHERE content = $1)
        AND NOT EXISTS (SELECT 1 FROM holding WHERE content = $1)
        AND NOT EXISTS (SELECT 1 FROM hold WHERE content = $1 OR successor = $1)";
    tx.execute(sql, &values![content]).await?;
    Ok(())
}

/// The account fetches this content no more; another may have its turn.
pub(crate) async fn end_turn(tx: &mut Tx, account: AccountId, content: i64) -> Result<()> {
    set_turn(tx, account, content, Turn::Done).await
}

/// Gives a holding another turn; one that becomes free is offered to what
/// waits.
pub(crate) async fn set_turn(tx: &mut Tx, account: AccountId, content: i64, turn: Turn) -> Result<()> {
    let Some(holding) = tx.unit.holding(account, content) else { return Ok(()) };
    let before = std::mem::replace(&mut holding.turn, turn);
    if before != Turn::Active || turn == Turn::Active {
        return Ok(());
    }
    if tx.effects.freed.contains(&account) {
        return Ok(());
    }
    let sql = "SELECT 1 FROM holding WHERE account = $1 AND turn = 1 LIMIT 1";
    if tx.first(sql, &values![account]).await?.is_some() {
        tx.unit.purse(account)?.turns_due = true;
        tx.effects.freed.insert(account);
    }
    Ok(())
}

/// The replacing pins of a content that is now held keep nothing any more.
async fn end_holds(tx: &mut Tx, account: AccountId, successor: i64) -> Result<()> {
    if tx.unit.is_no_successor(successor) {
        return Ok(());
    }
    let sql = "SELECT requestid, content FROM hold WHERE successor = $1 AND account = $2";
    for row in tx.query(sql, &values![successor, account]).await? {
        end_hold(tx, row.uuid(0)?, account, row.int(1)?).await?;
    }
    Ok(())
}

/// A pin keeps this content no more.
pub(crate) async fn end_hold(
    tx: &mut Tx,
    requestid: uuid::Uuid,
    account: AccountId,
    content: i64,
) -> Result<()> {
    tx.execute("DELETE FROM hold WHERE requestid = $1", &values![requestid]).await?;
    unit::load_contents(tx, [content]).await?;
    unit::load_holdings(tx, [(account, content)]).await?;
    if let Some(holding) = tx.unit.holding(account, content) {
        holding.holds -= 1;
    }
    drop_unused(tx, account, content).await
}
