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

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use serde_json::Value;

use crate::{
    cli::{Cli, Command},
    output::{print, print_pretty_json, printable},
};

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

/// Milliseconds since 1970 as RFC 3339 text.
fn time(millis: Option<i64>) -> Option<String> {
    millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()).map(|time| time.to_string())
}

/// Prints rows: as one JSON array, or as columns under their names.
fn print_table(columns: &[&str], rows: &[Value], as_json: bool) -> Result<()> {
    if as_json {
        return print_pretty_json(&rows);
    }
    print(&columns.join("\t"))?;
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(&row[*column])).collect();
        print(&cells.join("\t"))?;
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => printable(text).into_owned(),
        other => other.to_string(),
    }
}
