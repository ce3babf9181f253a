//! `cargo xtask faults`: what tests do when something fails, many times longer
//! than in `test`: kills, losses of power, bad and full disks, restarts of
//! PostgreSQL, jumps of the clock, floods of CIDs that nobody has.

use anyhow::Result;

use super::{
    build,
    e2e::{self, Run},
};
use crate::{cache::Cache, peers::Peers, report::Report};

/// The tests of failures: the first three as often as is asked for, power loss
/// in ten lives of a store for each of these, the others as they are.
const SUITES: &[&str] = &[
    "crash",
    "crash_split",
    "crash_postgres",
    "power_loss",
    "durable",
    "damaged_store",
    "unreadable_disk",
    "postgres_restarts",
    "two_processes",
    "clock",
    "unfetchable",
];

pub(crate) fn run(rounds: u32) -> Result<bool> {
    let mut report = Report::new();
    let Some(peers) = report.stage("peers", |_| Ok(Peers::install(&Cache::open()?))) else {
        return Ok(report.close());
    };
    let Some(binary) = report.stage("build", |_| build::workspace()) else { return Ok(report.close()) };
    for suite in SUITES {
        let run = Run { peers: &peers, binary: &binary, arguments: &[], crash_rounds: Some(rounds) };
        report.stage(suite, |count| e2e::tests(run, &[(*suite).to_owned()], count));
    }
    report.leave_out(peers.missing());
    Ok(report.close())
}
