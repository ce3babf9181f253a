//! Lists of an account's pins, newest first, with their count.
//!
//! Without filters by name, CID or metadata the cost is that of the page: the
//! page comes from ranges of (account, status, created), one for each status,
//! and the count from the tally ([`prefix`]). With such filters the page comes
//! from the filter's own index, and the count is exact up to [`EXACT`]. Page
//! and count are read in one snapshot.

mod filter;
mod prefix;

use pinfold_core::status::Status;

use super::{
    error::Result,
    records,
    sql::{Row, values},
    tally,
    tx::Tx,
    types::{AccountId, ListQuery, Millis, Page, PinRecord},
};

/// Counts under filters by name, CID or metadata are exact up to this, and
/// this beyond it. Clients end when the count is that of the results, so they
/// still read everything.
pub(crate) const EXACT: u64 = 10_000;

/// The most pins of a page.
const MAX_LIMIT: u32 = 1_000;

/// A page and its count.
pub(crate) async fn list(tx: &mut Tx, account: AccountId, query: &ListQuery) -> Result<Page> {
    let limit = query.limit.clamp(1, MAX_LIMIT);
    if !query.contents.is_empty() || query.name.is_some() || !query.meta.is_empty() {
        return filter::list(tx, account, query, limit).await;
    }
    let (before, after) = bounds(query);
    let statuses = distinct(&query.statuses);
    let upto = prefix::prefix(tx, account, before, &statuses).await?;
    let down = match query.after {
        Some(after) => prefix::prefix(tx, account, after.saturating_add(1), &statuses).await?,
        None => 0,
    };
    let count = upto.saturating_sub(down);
    let pins =
        if count == 0 { Vec::new() } else { page(tx, account, &statuses, before, after, limit).await? };
    Ok(Page { count, pins })
}

/// The cursors: strictly before, strictly after.
fn bounds(query: &ListQuery) -> (Millis, Millis) {
    (query.before.unwrap_or(Millis::MAX), query.after.unwrap_or(-1))
}

fn distinct(statuses: &[Status]) -> Vec<Status> {
    Status::ALL.into_iter().filter(|status| statuses.contains(status)).collect()
}

/// The newest pins of some statuses, from a range of the index for each. The
/// bounds are compared as rows: with equality on the first columns PostgreSQL
/// would choose another index and walk past every newer pin.
async fn page(
    tx: &mut Tx,
    account: AccountId,
    statuses: &[Status],
    before: Millis,
    after: Millis,
    limit: u32,
) -> Result<Vec<PinRecord>> {
    let source = "(SELECT * FROM pin
        WHERE (account, status, created) < ($1, $2, $3) AND (account, status, created) > ($1, $2, $4)
        ORDER BY account DESC, status DESC, created DESC LIMIT $5) p";
    let sql = records::select(source);
    let lists: Vec<_> = statuses
        .iter()
        .map(|&status| values![account, tally::number(status), before, after, i64::from(limit)].to_vec())
        .collect();
    let rows: Vec<Row> = tx.query_many(&sql, &lists).await?.into_iter().flatten().collect();
    newest(tx, rows, limit).await
}

/// Reads the newest of some rows.
async fn newest(tx: &mut Tx, rows: Vec<Row>, limit: u32) -> Result<Vec<PinRecord>> {
    let mut dated = rows.into_iter().map(|row| Ok((row.int(3)?, row))).collect::<Result<Vec<_>>>()?;
    dated.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    dated.truncate(limit as usize);
    let rows: Vec<Row> = dated.into_iter().map(|(_, row)| row).collect();
    records::read(tx, &rows).await
}

/// Pins of an account in the order of their creation.
pub(crate) async fn export(
    tx: &mut Tx,
    account: AccountId,
    after: Millis,
    limit: u32,
) -> Result<Vec<PinRecord>> {
    let source = "(SELECT * FROM pin WHERE account = $1 AND created > $2 ORDER BY created LIMIT $3) p";
    let sql = format!("{} ORDER BY p.created", records::select(source));
    let limit = i64::from(limit.clamp(1, MAX_LIMIT));
    let rows = tx.query(&sql, &values![account, after, limit]).await?;
    records::read(tx, &rows).await
}
