//! Adding pins: many in one transaction, each accepted or refused by itself.
//!
//! [`add`] loads and locks what the batch needs (contents by key, accounts by
//! number, holdings, allocations, nodes), decides each pin in memory
//! ([`mod@admit`]), and writes them with a few statements. Nothing that one pin
//! brings can fail another.

mod admit;
mod remove;
mod replace;

use std::collections::{BTreeMap, BTreeSet};

use pinfold_core::{
    names,
    status::{Reason, Status},
};
use sha2::{Digest, Sha256};

pub(crate) use remove::{remove, remove_account_part};
pub(crate) use replace::replace;

use super::{
    content::{self, Content, State},
    effects,
    error::{PinRefusal, Result},
    nodes, records,
    sql::{Value, values},
    tally,
    tx::Tx,
    types::{AccountId, MAX_PINS_OF_A_ROOT, NewPin, PinRecord},
    unit,
};
use admit::{Accepted, Desk, admit};

const INSERT: &str = "INSERT INTO pin (requestid, account, content, created, seq, status, cid, name, folded, \
    meta, origins, failure, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// The pins that the account `$2` has of the content `$1`.
pub(crate) const OF_ROOT: &str = "content = $1 AND account = $2";

/// Adds pins; answers each in the order given.
pub(crate) async fn add(tx: &mut Tx, pins: &[NewPin]) -> Result<Vec<Result<PinRecord>>> {
    let contents = intern(tx, pins, &[]).await?;
    let mut desk = open_desk(tx, pins, &contents).await?;
    let mut accepted = Vec::new();
    let mut answers = Vec::with_capacity(pins.len());
    for pin in pins {
        let content = contents[&pin.content];
        let outcome = match replace::end_credit(tx, pin.account, content).await {
            Ok(()) => admit(tx, &mut desk, pin, content, 0),
            Err(error) => Err(error),
        };
        answers.push(match outcome {
            Ok(row) => {
                let record = record(tx, pin, &row)?;
                accepted.push((pin, row));
                Ok(record)
            }
            Err(error @ super::Error::Pin(_)) => Err(error),
            Err(error) => return Err(error),
        });
    }
    insert(tx, &accepted).await?;
    let kept: BTreeSet<i64> = accepted.iter().map(|(_, row)| row.content).collect();
    for &content in contents.values().filter(|content| !kept.contains(content)) {
        effects::forget(tx, content).await?;
    }
    Ok(answers)
}

/// Finds or makes the contents of some pins and locks them, with `also`.
/// Keys come first, in their order, while no content is locked: whoever makes
/// the same content at the moment is waited for.
async fn intern(tx: &mut Tx, pins: &[NewPin], also: &[i64]) -> Result<BTreeMap<Vec<u8>, i64>> {
    let wanted: BTreeMap<&[u8], &NewPin> = pins.iter().map(|pin| (&*pin.content, pin)).collect();
    let sql = format!(
        "INSERT INTO content (key, cid, inline, state) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key) DO NOTHING RETURNING {}",
        content::COLUMNS
    );
    let state = |pin: &NewPin| if pin.inline { State::Held } else { State::Waiting } as i64;
    let lists: Vec<Vec<Value>> =
        wanted.iter().map(|(key, pin)| values![*key, &pin.cid, pin.inline, state(pin)].to_vec()).collect();
    let mut contents = BTreeMap::new();
    for row in tx.insert_new(&sql, &lists).await? {
        let content = Content::read(&row, 0)?;
        contents.insert(content.key.clone(), content.id);
        tx.unit.loaded_content(content);
    }
    let known = wanted.into_keys().filter(|key| !contents.contains_key(*key));
    let known: Vec<Vec<u8>> = known.map(<[u8]>::to_vec).collect();
    lock_known(tx, known, also, &mut contents).await?;
    Ok(contents)
}

/// Locks contents by their keys, with `also`, and adds their numbers.
async fn lock_known(
    tx: &mut Tx,
    keys: Vec<Vec<u8>>,
    also: &[i64],
    contents: &mut BTreeMap<Vec<u8>, i64>,
) -> Result<()> {
    let lists: Vec<_> = keys.iter().map(|key| values![key].to_vec()).collect();
    let found = tx.query_many("SELECT id FROM content WHERE key = $1", &lists).await?;
    let ids = found.iter().flatten().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    unit::load_contents(tx, ids.iter().chain(also).copied()).await?;
    for id in ids {
        if let Ok(content) = tx.unit.content(id) {
            contents.insert(content.key.clone(), id);
        }
    }
    // One that was there may have been removed since.
    if keys.iter().all(|key| contents.contains_key(key)) { Ok(()) } else { Err(super::Error::Raced) }
}

/// Loads what decides about some pins.
async fn open_desk(tx: &mut Tx, pins: &[NewPin], contents: &BTreeMap<Vec<u8>, i64>) -> Result<Desk> {
    let accounts: BTreeSet<AccountId> = pins.iter().map(|pin| pin.account).collect();
    unit::load_accounts(tx, accounts.iter().copied()).await?;
    let keys: BTreeSet<(AccountId, i64)> =
        pins.iter().map(|pin| (pin.account, contents[&pin.content])).collect();
    unit::load_holdings(tx, keys.iter().copied()).await?;
    let desk = Desk { nodes: nodes::all(tx).await?, ..load_counts(tx, &accounts, &keys).await? };
    load_placed(tx, contents.values().copied()).await?;
    Ok(desk)
}

/// Loads the allocations of contents that ever had one.
async fn load_placed(tx: &mut Tx, contents: impl Iterator<Item = i64>) -> Result<()> {
    let mut placed = Vec::new();
    for id in contents {
        if tx.unit.content(id)?.generation > 0 {
            placed.push(id);
        } else {
            tx.unit.not_placed(id);
        }
    }
    unit::load_allocations(tx, placed).await
}

async fn load_counts(tx: &mut Tx, accounts: &BTreeSet<i64>, keys: &BTreeSet<(i64, i64)>) -> Result<Desk> {
    let mut desk = Desk::default();
    let sql = "SELECT
        (SELECT CAST(COALESCE(SUM(queued), 0) AS BIGINT) FROM tally WHERE account = $1 AND level = 2),
        (SELECT COUNT(*) FROM holding WHERE account = $1 AND turn = 2)";
    let lists: Vec<_> = accounts.iter().map(|&account| values![account].to_vec()).collect();
    for (&account, rows) in accounts.iter().zip(tx.query_many(sql, &lists).await?) {
        let Some(row) = rows.first() else { continue };
        desk.queued.insert(account, row.count(0)?);
        desk.active.insert(account, row.count(1)?);
    }
    let sql = format!("SELECT COUNT(*) FROM (SELECT 1 FROM pin WHERE {OF_ROOT} LIMIT $3) counted");
    let lists: Vec<_> = keys
        .iter()
        .map(|&(account, content)| values![content, account, content::amount(MAX_PINS_OF_A_ROOT)].to_vec())
        .collect();
    for (&key, rows) in keys.iter().zip(tx.query_many(&sql, &lists).await?) {
        desk.roots.insert(key, rows.first().map_or(Ok(0), |row| row.count(0))?);
    }
    Ok(desk)
}

/// Writes accepted pins.
async fn insert(tx: &mut Tx, accepted: &[(&NewPin, Accepted)]) -> Result<()> {
    let lists: Vec<_> = accepted.iter().map(|(pin, row)| pin_values(pin, row)).collect();
    tx.execute_many(INSERT, &lists).await?;
    let pairs: Vec<_> = accepted
        .iter()
        .flat_map(|(pin, row)| {
            pairs(pin).into_iter().map(|pair| values![pin.account, pair, row.created].to_vec())
        })
        .collect();
    tx.execute_many("INSERT INTO pin_meta (account, pair, created) VALUES ($1, $2, $3)", &pairs).await?;
    if tx.is_sqlite() {
        let named: Vec<_> = accepted
            .iter()
            .filter(|(pin, _)| pin.name.is_some())
            .map(|(pin, _)| values![pin.requestid].to_vec())
            .collect();
        tx.execute_many(
            "INSERT INTO pin_name (rowid, name) SELECT id, folded FROM pin WHERE requestid = $1",
            &named,
        )
        .await?;
    }
    for (_, row) in accepted {
        tx.changed(row.content);
        if row.work {
            tx.work(row.content);
        }
    }
    Ok(())
}

fn pin_values(pin: &NewPin, row: &Accepted) -> Vec<Value> {
    values![
        pin.requestid,
        pin.account,
        row.content,
        row.created,
        row.seq,
        tally::number(row.status),
        &pin.cid,
        pin.name.as_deref(),
        pin.name.as_deref().map(names::fold),
        records::encode(&pin.meta),
        records::encode(&pin.origins),
        row.failure.map(Reason::as_str),
        Value::Null
    ]
    .to_vec()
}

/// Digests of a pin's metadata, for [`super::list`].
pub(crate) fn pairs(pin: &NewPin) -> Vec<Vec<u8>> {
    pin.meta.iter().map(|(key, value)| pair(key, value)).collect()
}

/// The digest of one key and its value: 16 bytes, so that texts of any length
/// can be found through an index.
pub(crate) fn pair(key: &str, value: &str) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update((key.len() as u64).to_be_bytes());
    digest.update(key.as_bytes());
    digest.update(value.as_bytes());
    digest.finalize()[..16].to_vec()
}

/// The record of a pin that was just accepted.
fn record(tx: &mut Tx, pin: &NewPin, row: &Accepted) -> Result<PinRecord> {
    let nodes = tx.unit.nodes.clone().unwrap_or_default();
    let wanted = tx.settings.replicas_target;
    let allocated: Vec<i64> =
        tx.unit.allocations_of(row.content).filter(|a| a.is_wanted()).map(|a| a.node).collect();
    let content = tx.unit.content(row.content)?;
    Ok(PinRecord {
        requestid: pin.requestid,
        account: pin.account,
        content: row.content,
        created: row.created,
        cid: pin.cid.clone(),
        name: pin.name.clone(),
        meta: pin.meta.clone(),
        origins: pin.origins.clone(),
        status: row.status,
        info: records::info(content, row.failure, None, wanted),
        delegates: records::delegates(content.inline, &nodes, &allocated),
    })
}

/// The refusal of a pin that is not there.
fn not_found() -> super::Error {
    PinRefusal::NotFound.into()
}

/// Whether a status counts against the queue's limit.
fn is_queued(status: Status) -> bool {
    status == Status::Queued
}
