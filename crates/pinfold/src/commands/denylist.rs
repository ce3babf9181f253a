//! `pinfold denylist`: edits the denylist in the data folder, which a running
//! service applies again when it changes.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail};
use pinfold_core::denylist::Denylist;
use serde_json::{Value, json};

use super::print_table;
use crate::cli::DenylistCommand;

pub(crate) fn run(command: DenylistCommand) -> Result<()> {
    match command {
        DenylistCommand::Add { data, rule } => add(&data.denylist_path(), &rule),
        DenylistCommand::Rm { data, rule } => remove(&data.denylist_path(), rule.trim()),
        DenylistCommand::Ls { data, json } => {
            let rows: Vec<Value> =
                rules(&read(&data.denylist_path())?).map(|rule| json!({ "rule": rule })).collect();
            print_table(&["rule"], &rows, json)
        }
        DenylistCommand::Import { data, file } => {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            add(&data.denylist_path(), &rules(&text).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn add(path: &Path, new: &str) -> Result<()> {
    let (_, errors) = Denylist::parse(new);
    if let Some(error) = errors.first() {
        bail!("not a rule of the compact denylist format: {error}; nothing was added");
    }
    let mut text = read(path)?;
    let known: std::collections::HashSet<&str> = text.lines().map(str::trim).collect();
    let fresh: Vec<&str> = new.lines().map(str::trim).filter(|line| !known.contains(line)).collect();
    let added = fresh.len();
    let fresh = fresh.join("\n");
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&fresh);
    text.push('\n');
    write(path, &text)?;
    eprintln!("{added} rules added to {}", path.display());
    Ok(())
}

fn remove(path: &Path, rule: &str) -> Result<()> {
    let text = read(path)?;
    if !text.lines().any(|line| line.trim() == rule) {
        bail!("{} has no rule {rule:?}; `pinfold denylist ls` lists them", path.display());
    }
    let kept: Vec<&str> = text.lines().filter(|line| line.trim() != rule).collect();
    write(path, &(kept.join("\n") + "\n"))
}

fn rules(text: &str) -> impl Iterator<Item = &str> {
    let body = text.split_once("\n---\n").map_or(text, |(_, body)| body);
    body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn read(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces the file in one step, so that a service never reads half of it.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    std::fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
}
