//! `pinfold denylist`: the rules in the database, which every service on it
//! applies within seconds.

use std::path::Path;

use anyhow::{Context, Result, bail};
use pinfold_core::denylist::Denylist;
use pinfold_service::db::Database;
use serde_json::{Value, json};

use super::print_table;
use crate::{cli::DenylistCommand, output::say};

/// Rules written or read at once.
const PART: u32 = 1_000;

pub(crate) async fn run(command: DenylistCommand) -> Result<()> {
    match command {
        DenylistCommand::Add { data, rule } => {
            let new = checked(&rule)?;
            add(&data.open().await?, &new).await
        }
        DenylistCommand::Rm { data, rule } => remove(&data.open().await?, rule.trim()).await,
        DenylistCommand::Ls { data, json } => {
            let database = data.open().await?;
            let rows = rules(&database).await?;
            database.close().await;
            print_table(&["rule"], &rows, json)
        }
        DenylistCommand::Import { data, file } => {
            let new = checked(&read(&file)?)?;
            add(&data.open().await?, &new).await
        }
    }
}

/// The rules of a text, all of which must be right.
fn checked(text: &str) -> Result<Vec<String>> {
    let (_, errors) = Denylist::parse(text);
    if let Some(error) = errors.first() {
        bail!("not a rule of the compact denylist format: {error}; nothing was added");
    }
    let body = text.split_once("\n---\n").map_or(text, |(_, body)| body);
    let lines = body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

async fn add(database: &Database, new: &[String]) -> Result<()> {
    let mut added = 0;
    for part in new.chunks(PART as usize) {
        added += database.add_denylist_rules(part.to_vec()).await?;
    }
    database.close().await;
    say(&format!("{added} rules added; every service on the database applies them within seconds"));
    Ok(())
}

async fn remove(database: &Database, rule: &str) -> Result<()> {
    if !database.remove_denylist_rule(rule).await? {
        bail!("there is no rule {rule:?} in the database; `pinfold denylist ls` lists them");
    }
    database.close().await;
    Ok(())
}

async fn rules(database: &Database) -> Result<Vec<Value>> {
    let (mut rows, mut after) = (Vec::new(), 0);
    loop {
        let part = database.denylist_rules(after, PART).await?;
        let Some((last, _)) = part.last() else { return Ok(rows) };
        after = *last;
        rows.extend(part.iter().map(|(_, rule)| json!({ "rule": rule })));
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
