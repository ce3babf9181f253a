//! Turns: how many contents are fetched at once on behalf of one account.
//!
//! What is beyond [`super::Settings::max_pinning`] waits as `queued`, in the
//! order in which it came, and no node knows of it. A content that pauses
//! between attempts, or whose fetch another account began, takes no turn.

use std::sync::Arc;

use super::{
    effects, error::Result, holding::Turn, nodes, placement, sql::values, tx::Tx, types::AccountId, unit,
};

/// Gives free turns of an account to what waits longest; answers how many.
pub(crate) async fn give(tx: &mut Tx, account: AccountId) -> Result<u64> {
    // Contents are locked before the account, and its turns are certain only
    // then: as many are locked as there seem to be turns, often one or two.
    let seeming = free(tx, account).await?;
    let waiting = waiting(tx, account, seeming).await?;
    unit::load_contents(tx, waiting.iter().copied()).await?;
    unit::load_accounts(tx, [account]).await?;
    unit::load_holdings(tx, waiting.iter().map(|&content| (account, content))).await?;
    unit::load_allocations(tx, waiting.iter().copied()).await?;
    let turns = usize::try_from(free(tx, account).await?).unwrap_or(0);
    let mut given = 0;
    for &content in waiting.iter().take(turns) {
        given += u64::from(begin(tx, account, content).await?);
    }
    unit::flush(tx).await?;
    let more = free(tx, account).await? > 0 && !self::waiting(tx, account, 1).await?.is_empty();
    tx.unit.purse(account)?.turns_due = more;
    Ok(given)
}

/// Turns of the account that nothing has.
async fn free(tx: &mut Tx, account: AccountId) -> Result<i64> {
    let most = i64::from(tx.settings.max_pinning.max(1));
    let sql = "SELECT COUNT(*) FROM holding WHERE account = $1 AND turn = 2";
    let active = tx.first(sql, &values![account]).await?.map_or(Ok(0), |row| row.int(0))?;
    Ok((most - active).max(0))
}

async fn waiting(tx: &mut Tx, account: AccountId, most: i64) -> Result<Vec<i64>> {
    let sql = "SELECT content FROM holding WHERE account = $1 AND turn = 1 ORDER BY since LIMIT $2";
    let rows = tx.query(sql, &values![account, most]).await?;
    rows.iter().map(|row| row.int(0)).collect()
}

async fn begin(tx: &mut Tx, account: AccountId, content: i64) -> Result<bool> {
    let Some(holding) = tx.unit.holding(account, content) else { return Ok(false) };
    if holding.turn != Turn::Waiting {
        return Ok(false);
    }
    holding.turn = Turn::Active;
    let underway = tx.unit.allocations_of(content).any(|allocation| allocation.is_wanted());
    if !tx.unit.content(content)?.is_unfinished() {
        effects::end_turn(tx, account, content).await?;
        return Ok(true);
    }
    if !underway {
        let nodes = nodes::all(tx).await?;
        let (settings, now) = (Arc::clone(&tx.settings), tx.now());
        if placement::place(&mut tx.unit, &settings, &nodes, content, &[], now)? {
            tx.work(content);
        }
    }
    tx.changed(content);
    Ok(true)
}

/// Contents of the account that come before this one.
pub(crate) async fn ahead(tx: &mut Tx, account: AccountId, content: i64) -> Result<Option<u64>> {
    let sql = "SELECT since FROM holding WHERE account = $1 AND content = $2 AND turn = 1";
    let Some(row) = tx.first(sql, &values![account, content]).await? else { return Ok(None) };
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM holding
        WHERE account = $1 AND turn = 1 AND since < $2 LIMIT 10000) counted";
    let row = tx.first(sql, &values![account, row.int(0)?]).await?;
    row.map(|row| row.count(0)).transpose()
}
