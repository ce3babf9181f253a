//! What `cargo xtask bench` runs: Pinfold beside its peers, in one run.
//!
//! Each row alternates both sides for some rounds, because a machine's mood
//! changes within minutes; medians and ratios are printed, with the spread,
//! CPU seconds and the highest resident memory of the process that receives.

mod meter;
mod pins;
mod table;
mod transfer;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use pinfold_e2e::place::Place;

use table::Table;

/// Names of the rows, in the order in which they run.
const ROWS: &[&str] = &["idle", "pin", "directory", "car", "post", "list"];

#[tokio::main]
async fn main() -> Result<()> {
    let asked: BTreeSet<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| !ROWS.contains(&name.as_str())) {
        bail!("{unknown:?} is not a row; the rows are {}", ROWS.join(", "));
    }
    let size = std::env::var("PINFOLD_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1_024);
    let rounds = std::env::var("PINFOLD_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut table = Table::default();
    for row in ROWS.iter().filter(|row| asked.is_empty() || asked.contains(**row)) {
        let place = Place::new()?;
        eprintln!("{row} …");
        match *row {
            "idle" => transfer::idle(&place, &mut table).await?,
            "pin" => transfer::pin(&place, size, rounds, &mut table).await?,
            "directory" => transfer::directory(&place, rounds.min(3), &mut table).await?,
            "car" => transfer::car(&place, size, rounds, &mut table).await?,
            "post" => pins::post(&place, rounds, &mut table).await?,
            _ => pins::list(&place, &mut table).await?,
        }
    }
    println!("{table}");
    Ok(())
}
