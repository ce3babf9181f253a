//! An own recount of the database (SQLite), read as it lies on disk while the
//! product is stopped. It knows the tables and nothing of the code that
//! writes them.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};

/// The database's name in a data folder.
pub const FILE: &str = "pinfold.db";

/// What the recount reads, of each table the columns that it needs.
pub const TABLES: &[(&str, &str)] = &[
    ("account", "id, name, used, reserved, quota"),
    ("content", "id, cid, state, bytes"),
    ("hold", "account, content, credit"),
    ("holding", "account, content, pins, charged, reserved"),
    ("pin", "requestid, account, content, cid, seq, status"),
    ("tally", "account, level, bucket, queued, pinning, pinned, failed"),
];

/// Statuses and states as the tables number them.
const PINNED: i64 = 2;
const FAILED: i64 = 3;
const HELD: i64 = 2;

/// What a content that has blocks is charged at least, in bytes.
const LEAST: i64 = 4_096;

/// Counted by one level of the tally: its buckets are 256 times as large as
/// those of the level below.
const LEVELS: std::ops::Range<i64> = 0..3;

/// Recounts `pinfold.db` in a data folder. `sizes` has, for roots whose
/// blocks the test knows, the bytes of their distinct blocks.
pub fn recount(data: &Path, sizes: &BTreeMap<String, u64>) -> Result<()> {
    let path = data.join(FILE);
    let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(sound == "ok", "SQLite says of {}: {sound}", path.display());
    tallies(&database)?;
    holdings(&database)?;
    accounts(&database)?;
    credits(&database)?;
    let known = contents(&database, sizes)?;
    println!("recounted {}: {known} contents of a known size", path.display());
    Ok(())
}

/// Each row of the tally against the pins that it counts, and no pin uncounted.
fn tallies(database: &Connection) -> Result<()> {
    for level in LEVELS {
        let shift = 8 * (level + 1);
        let mut expected: BTreeMap<(i64, i64), [i64; 4]> = BTreeMap::new();
        let mut pins = database.prepare("SELECT account, seq, status FROM pin")?;
        let mut rows = pins.query([])?;
        while let Some(row) = rows.next()? {
            let (account, seq, status): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let status = usize::try_from(status).context("a status is not negative")?;
            expected.entry((account, seq >> shift)).or_default()[status] += 1;
        }
        let mut found = tally(database, level)?;
        found.retain(|_, counts| *counts != [0; 4]);
        ensure!(found == expected, "level {level} of the tally is {found:?} instead of {expected:?}");
    }
    Ok(())
}

fn tally(database: &Connection, level: i64) -> Result<BTreeMap<(i64, i64), [i64; 4]>> {
    let mut rows = database
        .prepare("SELECT account, bucket, queued, pinning, pinned, failed FROM tally WHERE level = ?1")?;
    let rows = rows.query_map([level], |row| {
        let key = (row.get(0)?, row.get(1)?);
        Ok((key, [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Each holding has the pins that it counts, and each pin that has not failed
/// has a holding.
fn holdings(database: &Connection) -> Result<()> {
    let wrong: i64 = database.query_row(
        "SELECT count(*) FROM holding h WHERE h.pins <> (SELECT count(*) FROM pin p \
         WHERE p.account = h.account AND p.content = h.content AND p.status <> ?1)",
        [FAILED],
        |row| row.get(0),
    )?;
    ensure!(wrong == 0, "{wrong} holdings count other pins than there are");
    let missing: i64 = database.query_row(
        "SELECT count(*) FROM pin p WHERE p.status <> ?1 AND NOT EXISTS \
         (SELECT 1 FROM holding h WHERE h.account = p.account AND h.content = p.content)",
        [FAILED],
        |row| row.get(0),
    )?;
    ensure!(missing == 0, "{missing} pins have no holding");
    Ok(())
}

/// What an account uses is what its holdings are charged; reserved likewise.
fn accounts(database: &Connection) -> Result<()> {
    let mut rows = database.prepare(
        "SELECT name, used, reserved, quota, \
         (SELECT coalesce(sum(charged), 0) FROM holding WHERE account = a.id), \
         (SELECT coalesce(sum(reserved), 0) FROM holding WHERE account = a.id) FROM account a",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (name, used, reserved): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (quota, charged, waiting): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
        ensure!(used <= quota, "{name} uses {used} bytes of {quota}");
        ensure!(used == charged, "{name} uses {used} bytes but is charged {charged}");
        ensure!(reserved == waiting, "{name} has {reserved} bytes reserved but {waiting} are waited for");
    }
    Ok(())
}

/// What a replacement pays less is what it keeps and nobody else does.
fn credits(database: &Connection) -> Result<()> {
    let wrong: i64 = database.query_row(
        "SELECT count(*) FROM hold k LEFT JOIN holding h ON h.account = k.account AND h.content = k.content \
         WHERE k.credit <> 0 AND (h.pins IS NULL OR h.pins > 0 OR k.credit <> h.charged)",
        [],
        |row| row.get(0),
    )?;
    ensure!(wrong == 0, "{wrong} replacements have a credit that nothing pays for");
    Ok(())
}

/// Roots of a known size: held where a pin of them is `pinned`, with the
/// right bytes, and charged that.
fn contents(database: &Connection, sizes: &BTreeMap<String, u64>) -> Result<usize> {
    let mut rows = database.prepare(
        "SELECT DISTINCT p.cid, c.state, c.bytes, h.charged FROM pin p JOIN content c ON c.id = p.content \
         JOIN holding h ON h.account = p.account AND h.content = p.content WHERE p.status = ?1",
    )?;
    let mut rows = rows.query([PINNED])?;
    let mut known = 0;
    while let Some(row) = rows.next()? {
        let (cid, state): (String, i64) = (row.get(0)?, row.get(1)?);
        ensure!(state == HELD, "{cid} is pinned in state {state}");
        let Some(size) = sizes.get(&cid) else { continue };
        let size = i64::try_from(*size)?;
        let (bytes, charged): (Option<i64>, i64) = (row.get(2)?, row.get(3)?);
        ensure!(bytes == Some(size), "{cid} has {bytes:?} bytes instead of {size}");
        ensure!(charged == size.max(LEAST), "{cid} of {size} bytes is charged {charged}");
        known += 1;
    }
    Ok(known)
}

/// Roots that the books say are held, of those that are pinned.
pub fn held(data: &Path) -> Result<Vec<String>> {
    let database = Connection::open_with_flags(data.join(FILE), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut rows = database
        .prepare("SELECT DISTINCT c.cid FROM content c JOIN pin p ON p.content = c.id WHERE c.state = ?1")?;
    let roots = rows.query_map([HELD], |row| row.get(0))?;
    Ok(roots.collect::<Result<_, _>>()?)
}
