//! `cargo xtask bench`: Pinfold beside its peers, in one run.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use super::build;
use crate::{
    cache::{Cache, checkout},
    peers::{
        Peers,
        go::{self, Go},
    },
    process::{cargo, run as execute},
    report::Report,
};

/// What is measured, and how much of it.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Rows: floors, idle, pin, directory, car, network, three-origins, cluster, list, postgres,
    /// accounts, remote-ls, reclaim; all of these where none is named. Only where they are named:
    /// cluster-100k, postgres-1m
    rows: Vec<String>,
    /// How often each side of a row is measured
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Size of the files that are moved
    #[arg(long, default_value_t = 1_024)]
    mebibytes: u32,
    /// A fiftieth of all pins and files, to try a row
    #[arg(long)]
    small: bool,
}

impl Choice {
    /// Whether a row runs that has ipfs-cluster as its peer.
    fn needs_cluster(&self) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| row.starts_with("cluster"))
    }
}

pub(crate) fn run(choice: &Choice) -> Result<bool> {
    let mut report = Report::new();
    let Some(peers) = report.stage("peers", |_| Ok(Peers::install(&Cache::open()?))) else {
        return Ok(report.close());
    };
    let cluster = if choice.needs_cluster() {
        report.stage("ipfs-cluster", |_| {
            let cache = Cache::open()?;
            go::cluster(&cache, &Go::provide(&cache)?)
        })
    } else {
        None
    };
    report.stage("build", |_| execute(cargo().args(["build", "--locked", "--release"])));
    report.stage("bench", |_| {
        execute(cargo().args(["build", "--locked", "--workspace", "--bin", "bench"]))?;
        let mut command = Command::new(build::target()?.join("debug").join("bench"));
        command.args(&choice.rows).current_dir(checkout().join("e2e"));
        peers.announce(&mut command);
        if let Some(cluster) = &cluster {
            command.env("PINFOLD_E2E_CLUSTER", cluster);
        }
        command.env("PINFOLD_BIN", build::target()?.join("release").join(build::binary_name()));
        command.env("PINFOLD_BENCH_ROUNDS", choice.rounds.to_string());
        command.env("PINFOLD_BENCH_MIB", choice.mebibytes.to_string());
        if choice.small {
            command.env("PINFOLD_BENCH_SMALL", "1");
        }
        execute(&mut command)
    });
    Ok(report.close())
}
