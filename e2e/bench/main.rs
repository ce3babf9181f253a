//! What `cargo xtask bench` runs: Pinfold beside its peers, in one run.
//!
//! Each row alternates both sides for some rounds, because a machine's mood
//! changes within minutes; medians and ratios are printed, with the spread,
//! CPU seconds and the highest resident memory of the process that receives.

mod cluster;
mod databases;
mod floors;
mod load;
mod meter;
mod network;
#[path = "../../crates/bitswap/tests/swarms/common/peer/mod.rs"]
mod peer;
mod pins;
mod reclaim;
mod remote_ls;
mod scale;
mod table;
mod three_origins;
mod transfer;

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use pinfold_e2e::place::Place;

use floors::Floors;
use meter::load_average;
use scale::Scale;
use table::Table;

/// Names of the rows, in the order in which they run.
const ROWS: &[&str] = &[
    "floors",
    "idle",
    "pin",
    "directory",
    "car",
    "network",
    "three-origins",
    "cluster",
    "list",
    "postgres",
    "accounts",
    "remote-ls",
    "reclaim",
];

/// Rows that run only where they are named: they take long.
const LONG: &[&str] = &["cluster-100k", "postgres-1m"];

/// Pins of the lists that ipfs-cluster is asked for.
const CLUSTER_PINS: [u64; 2] = [10_000, 100_000];

#[tokio::main]
async fn main() -> Result<()> {
    let asked: BTreeSet<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| !ROWS.iter().chain(LONG).any(|row| row == name)) {
        bail!("{unknown:?} is not a row; the rows are {}, {}", ROWS.join(", "), LONG.join(", "));
    }
    let scale = Scale::from_environment();
    let (mut table, mut missing) = (Table::default(), Vec::new());
    // Other work on the machine makes figures worthless: it is told with them.
    let load = load_average()?;
    let always = ROWS.iter().filter(|row| asked.is_empty() || asked.contains(**row));
    for row in always.chain(LONG.iter().filter(|row| asked.contains(**row))) {
        eprintln!("{row} …");
        if let Err(error) = run(row, &Place::new()?, &scale, &mut table).await {
            table.missing(row, &error);
            missing.push(*row);
        }
    }
    println!("Load before: {load:.2}. Rounds: {}.\n\n{table}", scale.rounds);
    ensure!(missing.is_empty(), "rows that could not be measured: {}", missing.join(", "));
    Ok(())
}

async fn run(row: &str, place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    match row {
        "floors" => Floors::measure(place, scale).map(|floors| floors.rows(table)),
        "idle" => transfer::idle(place, table).await,
        "pin" => transfer::pin(place, scale, table).await,
        "directory" => transfer::directory(place, scale, table).await,
        "car" => transfer::car(place, scale, table).await,
        "network" => network::row(place, scale, table).await,
        "three-origins" => three_origins::row(place, scale, table).await,
        "list" => pins::list(place, scale, table).await,
        "accounts" => databases::accounts(place, scale, table).await,
        "postgres" => databases::one(place, scale, table).await,
        "cluster" => {
            cluster::post(place, scale, table).await?;
            cluster::list(&Place::new()?, scale.of(CLUSTER_PINS[0]), table).await
        }
        "cluster-100k" => cluster::list(place, scale.of(CLUSTER_PINS[1]), table).await,
        "postgres-1m" => databases::long(place, scale, table).await,
        "remote-ls" => remote_ls::row(place, scale, table).await,
        _ => reclaim::row(place, scale, table).await,
    }
}
