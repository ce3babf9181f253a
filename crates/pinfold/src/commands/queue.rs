//! `pinfold queue`: what is not held yet, and why.

use anyhow::{Result, bail};
use pinfold_service::db::{Database, QueueEntry};
use serde_json::{Value, json};

use super::{print_table, time};
use crate::{cli::QueueCommand, output::say};

/// Entries read at once.
const PART: u32 = 1_000;

pub(crate) async fn run(command: QueueCommand) -> Result<()> {
    match command {
        QueueCommand::Ls { data, json } => {
            let database = data.open().await?;
            let rows: Vec<Value> = entries(&database).await?.iter().map(row).collect();
            database.close().await;
            let columns =
                ["cid", "node", "reason", "blocks", "bytes", "attempts", "next_attempt", "since", "detail"];
            print_table(&columns, &rows, json)
        }
        QueueCommand::Retry { data, cid } => {
            let database = data.open().await?;
            let entries = entries(&database).await?;
            let mut wanted: Vec<i64> = entries
                .iter()
                .filter(|entry| cid.as_ref().is_none_or(|cid| *cid == entry.cid))
                .map(|entry| entry.allocation.content)
                .collect();
            wanted.dedup();
            if let (Some(cid), true) = (&cid, wanted.is_empty()) {
                bail!("{cid} does not wait; `pinfold queue ls` lists what does");
            }
            let retried = database.retry(&wanted).await?;
            database.close().await;
            say(&format!("{retried} contents are tried again now"));
            Ok(())
        }
    }
}

async fn entries(database: &Database) -> Result<Vec<QueueEntry>> {
    let mut entries = Vec::new();
    let mut after = i64::MIN;
    loop {
        let part = database.queue(after, PART).await?;
        let Some(last) = part.last() else { return Ok(entries) };
        after = last.allocation.content;
        entries.extend(part);
    }
}

fn row(entry: &QueueEntry) -> Value {
    json!({
        "cid": entry.cid,
        "node": entry.node,
        "reason": entry.info.reason,
        "blocks": entry.info.blocks,
        "bytes": entry.info.bytes,
        "attempts": entry.info.attempts,
        "next_attempt": time(entry.info.next_attempt),
        "since": time(Some(entry.since)),
        "detail": entry.info.detail,
    })
}
