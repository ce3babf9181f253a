//! Removing pins.

use std::collections::BTreeMap;

use pinfold_core::status::Status;
use uuid::Uuid;

use super::{not_found, pair};
use crate::db::{
    effects,
    error::{Error, PinRefusal, Result},
    records,
    sql::{Row, values},
    tally,
    tx::Tx,
    types::{AccountId, Millis},
    unit,
};

/// Pins of a removed account that one transaction takes away.
const PART: i64 = 500;

const SELECT: &str = "SELECT p.content, p.seq, p.status, p.created, p.failure, h.content, p.meta FROM pin p
    LEFT JOIN hold h ON h.requestid = p.requestid WHERE p.requestid = $1 AND p.account = $2";

/// A pin as it is found before it is removed.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) requestid: Uuid,
    pub(super) account: AccountId,
    pub(super) content: i64,
    pub(super) seq: i64,
    pub(super) status: Status,
    pub(super) created: Millis,
    pub(super) meta: BTreeMap<String, String>,
    /// It has failed by itself: it holds nothing.
    pub(super) ended: bool,
    /// The content that it keeps until it is pinned.
    pub(super) keeps: Option<i64>,
}

/// Finds a pin of the account and locks it with the contents that it concerns
/// and the account.
pub(super) async fn find(tx: &mut Tx, account: AccountId, requestid: Uuid) -> Result<Found> {
    let contents = concerned(tx, account, requestid).await?;
    unit::load_contents(tx, contents).await?;
    unit::load_accounts(tx, [account]).await?;
    // Read again: until now it could change, from here on it cannot.
    let row = tx.first(SELECT, &values![requestid, account]).await?.ok_or_else(not_found)?;
    let found = read(&row, requestid, account)?;
    let contents = [Some(found.content), found.keeps];
    unit::load_contents(tx, contents.into_iter().flatten()).await?;
    unit::load_holdings(tx, contents.into_iter().flatten().map(|content| (account, content))).await?;
    Ok(found)
}

/// The contents that a pin of the account concerns, as they are before any of
/// them is locked.
pub(super) async fn concerned(tx: &mut Tx, account: AccountId, requestid: Uuid) -> Result<Vec<i64>> {
    let row = tx.first(SELECT, &values![requestid, account]).await?.ok_or_else(not_found)?;
    Ok([Some(row.int(0)?), row.opt_int(5)?].into_iter().flatten().collect())
}

fn read(row: &Row, requestid: Uuid, account: AccountId) -> Result<Found> {
    Ok(Found {
        requestid,
        account,
        content: row.int(0)?,
        seq: row.int(1)?,
        status: tally::status(row.int(2)?)?,
        created: row.int(3)?,
        meta: records::decode(row.text(6)?)?,
        ended: row.opt_text(4)?.is_some(),
        keeps: row.opt_int(5)?,
    })
}

/// Removes a pin of the account.
pub(crate) async fn remove(tx: &mut Tx, account: AccountId, requestid: Uuid) -> Result<()> {
    let found = find(tx, account, requestid).await?;
    take_away(tx, &found).await
}

/// Removes a pin that was found, with what it held and kept.
pub(super) async fn take_away(tx: &mut Tx, pin: &Found) -> Result<()> {
    delete_row(tx, pin).await?;
    if let Some(kept) = pin.keeps {
        effects::end_hold(tx, pin.requestid, pin.account, kept).await?;
        if !pin.ended {
            // What it kept paid a part of it.
            effects::reprice(tx, pin.account, pin.content).await?;
        }
    }
    if !pin.ended
        && let Some(holding) = tx.unit.holding(pin.account, pin.content)
    {
        holding.pins -= 1;
    }
    tx.changed(pin.content);
    effects::drop_unused(tx, pin.account, pin.content).await?;
    if pin.ended { effects::let_go(tx, pin.content).await } else { Ok(()) }
}

/// Deletes the rows of a pin itself.
pub(super) async fn delete_row(tx: &mut Tx, pin: &Found) -> Result<()> {
    if tx.is_sqlite() {
        let sql = "DELETE FROM pin_name WHERE rowid = (SELECT id FROM pin WHERE requestid = $1 AND folded IS NOT NULL)";
        tx.execute(sql, &values![pin.requestid]).await?;
    }
    tx.execute("DELETE FROM pin WHERE requestid = $1", &values![pin.requestid]).await?;
    let pairs: Vec<_> = pin
        .meta
        .iter()
        .map(|(key, value)| values![pin.account, pair(key, value), pin.created].to_vec())
        .collect();
    tx.execute_many("DELETE FROM pin_meta WHERE account = $1 AND pair = $2 AND created = $3", &pairs).await?;
    tx.unit.deltas.remove(pin.account, pin.seq, pin.status);
    Ok(())
}

/// Removes some pins of an account that is being removed; answers how many,
/// 0 when none is left.
pub(crate) async fn remove_account_part(tx: &mut Tx, account: AccountId) -> Result<u64> {
    let sql = "SELECT p.requestid, p.content, h.content FROM pin p
        LEFT JOIN hold h ON h.requestid = p.requestid WHERE p.account = $1 ORDER BY p.created LIMIT $2";
    let rows = tx.query(sql, &values![account, PART]).await?;
    let contents = rows.iter().flat_map(|row| [row.int(1).map(Some), row.opt_int(2)]);
    let contents = contents.collect::<Result<Vec<_>>>()?;
    unit::load_contents(tx, contents.into_iter().flatten()).await?;
    for row in &rows {
        match remove(tx, account, row.uuid(0)?).await {
            // Another process removes the same account.
            Ok(()) | Err(Error::Pin(PinRefusal::NotFound)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows.len() as u64)
}
