//! How many pins of an account are older than a moment, from the tally.
//!
//! With `e` one more than the number of the newest pin before the moment, the
//! pins `0..e` are whole buckets of level 2, then whole buckets of level 1,
//! then of level 0, then fewer than 256 single pins: at most 766 rows.

use pinfold_core::status::Status;

use crate::db::{
    error::Result,
    sql::{Row, values},
    tally::{self, BITS},
    tx::Tx,
    types::{AccountId, Millis},
};

/// Pins in a bucket of level 0.
const BUCKET: i64 = 1 << BITS;

const BUCKETS: &str = "SELECT
    CAST(COALESCE(SUM(queued), 0) AS BIGINT), CAST(COALESCE(SUM(pinning), 0) AS BIGINT),
    CAST(COALESCE(SUM(pinned), 0) AS BIGINT), CAST(COALESCE(SUM(failed), 0) AS BIGINT)
    FROM tally WHERE account = $1 AND (
        (level = 2 AND bucket < $2) OR (level = 1 AND bucket >= $3 AND bucket < $4)
        OR (level = 0 AND bucket >= $5 AND bucket < $6))";

/// Pins created before `moment` with one of the statuses.
pub(super) async fn prefix(
    tx: &mut Tx,
    account: AccountId,
    moment: Millis,
    statuses: &[Status],
) -> Result<u64> {
    if moment == Millis::MAX {
        return whole(tx, account, statuses).await;
    }
    let sql = "SELECT seq, status FROM pin WHERE account = $1 AND created < $2
        ORDER BY created DESC LIMIT $3";
    let newest = tx.query(sql, &values![account, moment, BUCKET]).await?;
    let Some(first) = newest.first() else { return Ok(0) };
    let end = first.int(0)? + 1;
    let single = singles(&newest, (end >> BITS) << BITS, statuses)?;
    let (two, one, zero) = (end >> (3 * BITS), end >> (2 * BITS), end >> BITS);
    let parameters = values![account, two, two << BITS, one, one << BITS, zero];
    let rows = tx.query(BUCKETS, &parameters).await?;
    Ok(single + sum(&rows, statuses)?)
}

/// All pins of the account: the sum of the highest level.
async fn whole(tx: &mut Tx, account: AccountId, statuses: &[Status]) -> Result<u64> {
    let rows = tx.query(BUCKETS, &values![account, i64::MAX, 0_i64, 0_i64, 0_i64, 0_i64]).await?;
    sum(&rows, statuses)
}

/// Of the newest pins those in the bucket that is not whole.
fn singles(newest: &[Row], from: i64, statuses: &[Status]) -> Result<u64> {
    let mut count = 0;
    for row in newest {
        let counts = row.int(0)? >= from && statuses.contains(&tally::status(row.int(1)?)?);
        count += u64::from(counts);
    }
    Ok(count)
}

fn sum(rows: &[Row], statuses: &[Status]) -> Result<u64> {
    let Some(row) = rows.first() else { return Ok(0) };
    statuses.iter().map(|&status| row.count(status as usize)).sum()
}
