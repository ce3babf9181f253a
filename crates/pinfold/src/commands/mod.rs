//! One module per command.

mod account;
mod backup;
mod check;
mod data;
mod denylist;
mod pin;
mod queue;
mod serve;
mod token;
mod up;

use std::{borrow::Cow, process::ExitCode};

use anyhow::{Context, Result};
use clap::CommandFactory;
use serde_json::Value;

use crate::cli::{Cli, Command};

/// The account that `up` makes on its first start.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::up(*args).await?,
        Command::Service(args) => up::service(*args).await?,
        Command::Node(command) => up::node(command).await?,
        Command::Token(command) => token::run(command).await?,
        Command::Account(command) => account::run(command).await?,
        Command::Pin(args) => return pin::run(args).await,
        Command::Denylist(command) => denylist::run(command).await?,
        Command::Queue(command) => queue::run(command).await?,
        Command::Backup(args) => backup::backup(args).await?,
        Command::Restore(args) => backup::restore(args).await?,
        Command::Migrate(args) => backup::migrate(args).await?,
        Command::Check(args) => return check::check(*args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pinfold", &mut std::io::stdout());
        }
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            clap_mangen::generate_to(Cli::command(), &directory)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Text from outside, made safe for a terminal: control characters are
/// written as their escapes.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let unsafe_char = |c: char| c.is_control() && c != '\n';
    if !text.contains(unsafe_char) {
        return text.into();
    }
    let escaped = |c: char| if unsafe_char(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

/// Milliseconds since 1970 as RFC 3339 text.
fn time(millis: Option<i64>) -> Option<String> {
    millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()).map(|time| time.to_string())
}

/// Prints rows: as one JSON array, or as columns under their names.
fn print_table(columns: &[&str], rows: &[Value], as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    println!("{}", columns.join("\t"));
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(&row[*column])).collect();
        println!("{}", cells.join("\t"));
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => printable(text).replace('\n', " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}"), "a\\u{1b}[31mb\\u{9b}");
        assert_eq!(printable("zwölf\nCIDs"), "zwölf\nCIDs");
    }
}
