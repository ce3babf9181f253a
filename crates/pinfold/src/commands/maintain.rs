//! `pinfold backup`, `restore`, `migrate` and `check`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use pinfold_service::db::{Database, Location};
use serde_json::json;

use super::printable;
use crate::cli::{BackupArgs, CheckArgs, MigrateArgs, RestoreArgs};

pub(crate) async fn backup(args: BackupArgs) -> Result<()> {
    let database = args.data.open().await?;
    database
        .backup(&args.file)
        .await
        .with_context(|| format!("cannot back up to {}", args.file.display()))?;
    database.close().await;
    eprintln!(
        "{} holds the database with its sealed keys. Keep {} with it: without that secret the tokens end.",
        args.file.display(),
        args.data.secret_path().display()
    );
    Ok(())
}

pub(crate) async fn restore(args: RestoreArgs) -> Result<()> {
    std::fs::create_dir_all(&args.data.data)
        .with_context(|| format!("cannot make {}", args.data.data.display()))?;
    Database::restore(&args.file, &args.data.settings()?).await.context("cannot restore the backup")?;
    eprintln!(
        "Restored. Nodes delete nothing that this older database does not know until their inventories are in."
    );
    Ok(())
}

pub(crate) async fn migrate(args: MigrateArgs) -> Result<()> {
    let version = Database::migrate(&args.data.settings()?).await.context("cannot migrate the database")?;
    eprintln!("The database has schema {version}.");
    Ok(())
}

/// Recounts; the exit status is 1 when something differs.
pub(crate) async fn check(args: CheckArgs) -> Result<ExitCode> {
    let database = args.data.open().await?;
    let mut report = database.check().await.context("cannot recount the database")?;
    database.close().await;
    let mut blocks = 0;
    if args.blocks {
        let found = super::up::check_blocks(&args.data.data).await?;
        blocks = found.blocks;
        report.differences.extend(found.differences);
    }
    if args.json {
        println!(
            "{}",
            json!({ "compared": report.compared, "blocks": blocks, "differences": report.differences })
        );
    } else {
        for difference in &report.differences {
            println!("{}", printable(difference));
        }
        let place = match args.data.location()? {
            Location::Sqlite(file) => file.display().to_string(),
            Location::Postgres(_) => "PostgreSQL".into(),
        };
        eprintln!(
            "{place}: {} rows compared, {blocks} blocks reread, {} differences",
            report.compared,
            report.differences.len()
        );
    }
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
