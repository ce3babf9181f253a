//! What the operator keeps and sees: signing keys, deeds, the denylist's
//! marks, the queue, totals.

use std::{fmt::Display, sync::Arc};

use pinfold_node_api::AllocationId;

use super::{
    ahead,
    content::{self, Content, Why},
    effects,
    error::Result,
    nodes, records,
    sql::{Row, values},
    tx::Tx,
    types::{Deed, Health, HeldContent, Millis, Node, QueueEntry, SealedKey, Totals},
    unit,
};

/// A clock that is further behind the newest heartbeat than this, in ms, is
/// not to be trusted with new pins.
const BEHIND_MS: i64 = 3_600_000;

/// The sealed keys, oldest first.
pub(crate) async fn keys(tx: &mut Tx) -> Result<Vec<SealedKey>> {
    let sql = "SELECT kid, sealed, created, retired FROM signing_key ORDER BY created, kid";
    let read = |row: &Row| {
        Ok(SealedKey {
            kid: row.text(0)?.to_owned(),
            sealed: row.bytes(1)?.to_vec(),
            created: row.int(2)?,
            retired: row.opt_int(3)?,
        })
    };
    tx.query(sql, &[]).await?.iter().map(read).collect()
}

/// Stores the first key; answers whether it was stored.
pub(crate) async fn add_first_key(tx: &mut Tx, key: &SealedKey) -> Result<bool> {
    one_at_a_time(tx).await?;
    if tx.first("SELECT 1 FROM signing_key LIMIT 1", &[]).await?.is_some() {
        return Ok(false);
    }
    insert_key(tx, key).await?;
    Ok(true)
}

/// Has another key sign: the others only verify from now on, or are gone.
pub(crate) async fn rotate_keys(tx: &mut Tx, key: &SealedKey, forget: bool) -> Result<()> {
    one_at_a_time(tx).await?;
    let now = tx.now();
    if forget {
        tx.execute("DELETE FROM signing_key", &[]).await?;
    } else {
        tx.execute("UPDATE signing_key SET retired = $1 WHERE retired IS NULL", &values![now]).await?;
    }
    insert_key(tx, key).await?;
    note_deed(tx, "token.rotate", if forget { "lost secret" } else { "" }, "").await
}

/// Two processes that start must not both make the first key, and two that
/// rotate must leave one that signs.
async fn one_at_a_time(tx: &mut Tx) -> Result<()> {
    super::property::set_once(tx, "signing_keys", "").await?;
    tx.query("SELECT 1 FROM property WHERE name = 'signing_keys' FOR UPDATE", &[]).await?;
    Ok(())
}

async fn insert_key(tx: &mut Tx, key: &SealedKey) -> Result<()> {
    let sql = "INSERT INTO signing_key (kid, sealed, created) VALUES ($1, $2, $3)";
    let created = tx.now();
    tx.execute(sql, &values![&key.kid, &key.sealed, created]).await?;
    Ok(())
}

/// Records what is done in this transaction, by whoever uses the database.
pub(crate) async fn note_deed(tx: &mut Tx, action: &str, subject: impl Display, detail: &str) -> Result<()> {
    let deed = Deed::now(&tx.settings.actor, action, subject, detail);
    record_deed(tx, &deed).await
}

/// Records a deed.
pub(crate) async fn record_deed(tx: &mut Tx, deed: &Deed) -> Result<()> {
    let sql = "INSERT INTO deed (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5)";
    let texts = [&deed.actor, &deed.action, &deed.subject, &deed.detail].map(|text| nodes::clean(text));
    let [actor, action, subject, detail] = texts;
    tx.execute(sql, &values![tx.now(), actor, action, subject, detail]).await?;
    Ok(())
}

/// Deeds, newest first.
pub(crate) async fn deeds(tx: &mut Tx, before: i64, limit: i64) -> Result<Vec<Deed>> {
    let sql =
        "SELECT id, at, actor, action, subject, detail FROM deed WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let read = |row: &Row| {
        Ok(Deed {
            id: row.int(0)?,
            at: row.int(1)?,
            actor: row.text(2)?.to_owned(),
            action: row.text(3)?.to_owned(),
            subject: row.text(4)?.to_owned(),
            detail: row.text(5)?.to_owned(),
        })
    };
    tx.query(sql, &values![before, limit]).await?.iter().map(read).collect()
}

/// Contents that are pinned or kept, or denied. Not with `EXISTS`: PostgreSQL
/// would read all holdings for each page.
pub(crate) async fn held_contents(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<HeldContent>> {
    let sql = "SELECT id, key, denied_why FROM content c WHERE id > $1
        AND (denied IS NOT NULL OR (SELECT 1 FROM holding h WHERE h.content = c.id LIMIT 1) IS NOT NULL)
        ORDER BY id LIMIT $2";
    let read = |row: &Row| {
        let denied = row.int(2)? & Why::Root as i64 != 0;
        Ok(HeldContent { id: row.int(0)?, key: row.bytes(1)?.to_vec(), denied })
    };
    tx.query(sql, &values![after, limit]).await?.iter().map(read).collect()
}

/// Denies contents by their roots, or lifts that; answers how many changed.
pub(crate) async fn deny(tx: &mut Tx, contents: &[i64], denied: bool) -> Result<u64> {
    let contents = &contents[..contents.len().min(effects::PART as usize)];
    unit::load_contents(tx, contents.iter().copied()).await?;
    let known: Vec<i64> = contents.iter().copied().filter(|id| tx.unit.content(*id).is_ok()).collect();
    ahead::load(tx, &known).await?;
    let mut changed = 0;
    for id in known {
        let now = tx.now();
        let content = tx.unit.content(id)?;
        changed += u64::from((content.denied_why & Why::Root as i64 != 0) != denied);
        if content.deny(Why::Root, denied, now) {
            effects::show(tx, id).await?;
        }
    }
    Ok(changed)
}

/// Allocations that are not stored, and contents that wait for one.
pub(crate) async fn queue(tx: &mut Tx, after: i64, limit: i64) -> Result<Vec<QueueEntry>> {
    let columns: Vec<String> =
        content::COLUMNS.split(", ").map(|column| format!("c.{}", column.trim())).collect();
    let sql = format!(
        "SELECT {}, a.node, a.generation, COALESCE(a.since,
            (SELECT MIN(h.since) FROM holding h WHERE h.content = c.id))
         FROM content c LEFT JOIN allocation a ON a.content = c.id AND a.state IN (0, 3)
         WHERE c.id > $1 AND c.inline = 0 AND (a.node IS NOT NULL OR c.state IN (0, 1, 3))
            AND EXISTS (SELECT 1 FROM holding h WHERE h.content = c.id)
         ORDER BY c.id, a.node LIMIT $2",
        columns.join(", ")
    );
    let rows = tx.query(&sql, &values![after, limit]).await?;
    let nodes = nodes::all(tx).await?;
    let wanted = tx.settings.replicas_target;
    rows.iter().map(|row| queue_entry(row, &nodes, wanted)).collect()
}

fn queue_entry(row: &Row, nodes: &Arc<Vec<Node>>, wanted: u32) -> Result<QueueEntry> {
    let content = Content::read(row, 0)?;
    let node = row.opt_int(content::WIDTH)?;
    let generation = row.opt_int(content::WIDTH + 1)?.unwrap_or(0);
    let peers = nodes.iter().filter(|other| Some(other.id) == node).map(nodes::hint).collect();
    Ok(QueueEntry {
        allocation: AllocationId { content: content.id, generation },
        cid: content.cid.clone(),
        node,
        info: records::info(&content, None, None, wanted),
        since: row.opt_int(content::WIDTH + 2)?.unwrap_or(0),
        peers,
        manifest: content.manifest,
    })
}

/// Whether this process may serve. A clock that is behind the newest heartbeat
/// was set back, or was ahead before; a machine that slept is merely ahead.
pub(crate) async fn health(tx: &mut Tx, schema: i64, now: Millis) -> Result<Health> {
    let row = tx.first("SELECT MAX(last_seen) FROM node", &[]).await?;
    let newest = row.map_or(Ok(None), |row| row.opt_int(0))?.unwrap_or(now);
    let clock_behind_ms = (newest - now).max(0);
    Ok(Health { schema, clock_behind_ms, ready: clock_behind_ms <= BEHIND_MS })
}

/// Totals for metrics.
pub(crate) async fn totals(tx: &mut Tx) -> Result<Totals> {
    let sql = "SELECT CAST(COALESCE(SUM(queued), 0) AS BIGINT), CAST(COALESCE(SUM(pinning), 0) AS BIGINT),
        CAST(COALESCE(SUM(pinned), 0) AS BIGINT), CAST(COALESCE(SUM(failed), 0) AS BIGINT)
        FROM tally WHERE level = 2";
    let pins = tx.first(sql, &[]).await?.unwrap_or_default();
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(used), 0) AS BIGINT),
        CAST(COALESCE(SUM(reserved), 0) AS BIGINT) FROM account WHERE removing = 0";
    let accounts = tx.first(sql, &[]).await?.unwrap_or_default();
    let nodes = nodes::all(tx).await?;
    Ok(Totals {
        pins: [pins.count(0)?, pins.count(1)?, pins.count(2)?, pins.count(3)?],
        accounts: accounts.count(0)?,
        used_bytes: accounts.count(1)?,
        reserved_bytes: accounts.count(2)?,
        nodes: nodes.len() as u64,
        nodes_live: nodes.iter().filter(|node| node.live).count() as u64,
    })
}
