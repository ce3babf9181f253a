//! `pinfold check`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use pinfold_service::db::Location;
use serde_json::json;

use super::printable;
use crate::cli::CheckArgs;

/// Recounts; the exit status is 1 when something differs.
pub(crate) async fn check(args: CheckArgs) -> Result<ExitCode> {
    let database = args.data.open().await?;
    let mut report = database.check().await.context("cannot recount the database")?;
    let strays = database.strays().await.context("cannot read the strays")?;
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
            json!({
                "compared": report.compared,
                "blocks": blocks,
                "strays": strays.contents,
                "differences": report.differences,
            })
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
