//! `cargo xtask bench`: Pinfold beside its peers, in one run.

use anyhow::Result;

use super::build;
use crate::{
    cache::Cache,
    peers::Peers,
    process::{cargo, run as execute},
    report::Report,
};

pub(crate) fn run(rows: &[String], rounds: u32, mebibytes: u32) -> Result<bool> {
    let mut report = Report::new();
    let Some(peers) = report.stage("peers", |_| Peers::install(&Cache::open()?)) else {
        return Ok(report.close());
    };
    report.stage("build", |_| execute(cargo().args(["build", "--locked", "--release"])));
    report.stage("bench", |_| {
        let mut command = cargo();
        command
            .args(["run", "--locked", "--quiet", "--package", "pinfold-e2e", "--bin", "bench", "--"])
            .args(rows);
        peers.announce(&mut command);
        command.env("PINFOLD_BIN", build::target()?.join("release").join(build::binary_name()));
        command.env("PINFOLD_BENCH_ROUNDS", rounds.to_string());
        command.env("PINFOLD_BENCH_MIB", mebibytes.to_string());
        execute(&mut command)
    });
    Ok(report.close())
}
