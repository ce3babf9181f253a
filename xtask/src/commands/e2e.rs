//! `cargo xtask e2e`: the tests with real peers.

use std::path::Path;

use anyhow::{Result, ensure};

use super::build;
use crate::{
    cache::Cache,
    peers::{Missing, Peers, TestFile},
    process::{cargo, watch},
    report::{Count, Report},
};

/// The package of the tests with real peers.
const PACKAGE: &str = "pinfold-e2e";

/// Tests with real peers at a time. Each starts some processes of its own,
/// and many wait for their clocks more than for a core.
const THREADS: &str = "--test-threads=3";

/// Lives of a block store that lose power, for each kill of the product: they
/// run in memory, at a hundredth of the time.
const POWER_LOSSES_PER_KILL: u64 = 10;

/// CIDs that nobody has, for each of them: a hundred thousand of a thousand.
const UNFETCHABLE_PER_KILL: u64 = 100;

/// How tests with real peers are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) peers: &'a Peers,
    pub(crate) binary: &'a Path,
    /// For the test runner.
    pub(crate) arguments: &'a [String],
    /// How often crash tests kill the product, and a tenth of how often the
    /// block store loses power; none leaves it to them.
    pub(crate) crash_rounds: Option<u32>,
}

/// `cargo xtask e2e [SUITE]`.
pub(crate) fn run(suite: Option<&str>, arguments: &[String]) -> Result<bool> {
    let mut report = Report::new();
    let Some(peers) = report.stage("peers", |_| Ok(Peers::install(&Cache::open()?))) else {
        return Ok(report.close());
    };
    let Some(binary) = report.stage("build", |_| build::workspace()) else { return Ok(report.close()) };
    let run = Run { peers: &peers, binary: &binary, arguments, crash_rounds: None };
    let suites = suite.map_or_else(suites, |suite| Ok(vec![suite.to_owned()]))?;
    report.stage("tests with real peers", |count| tests(run, &suites, count));
    report.leave_out(peers.missing());
    Ok(report.close())
}

/// Runs files of the tests with real peers. Files that need a peer which
/// cannot be had here are left out, and their tests counted as skipped.
pub(crate) fn tests(run: Run<'_>, suites: &[String], count: &mut Count) -> Result<()> {
    let suites = runnable(run.peers, suites, count)?;
    if suites.is_empty() {
        return Ok(());
    }
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.args(suites.iter().flat_map(|name| ["--test", name.as_str()]));
    command.args(["--", THREADS]).args(run.arguments);
    command.args(run.peers.missing().iter().filter_map(Missing::word).flat_map(|word| ["--skip", word]));
    run.peers.announce(&mut command);
    command.env("PINFOLD_BIN", run.binary);
    if let Some(rounds) = run.crash_rounds {
        command.env("PINFOLD_E2E_CRASH_ROUNDS", rounds.to_string());
        let losses = u64::from(rounds) * POWER_LOSSES_PER_KILL;
        command.env("PINFOLD_POWER_LOSS_ROUNDS", losses.to_string());
        let unfetchable = u64::from(rounds) * UNFETCHABLE_PER_KILL;
        command.env("PINFOLD_E2E_UNFETCHABLE", unfetchable.to_string());
    }
    let passed = watch(&mut command, |line| count.read_line(line))?;
    ensure!(passed, "tests with real peers failed");
    Ok(())
}

fn runnable<'a>(peers: &Peers, suites: &'a [String], count: &mut Count) -> Result<Vec<&'a String>> {
    let (mut runnable, own) = (Vec::new(), self::suites()?);
    for suite in suites {
        if !own.contains(suite) {
            // One that needs no peer.
            runnable.push(suite);
            continue;
        }
        let file = TestFile::read(suite)?;
        if let Some(missing) = peers.missing().iter().find(|missing| file.needs(missing)) {
            println!("!!! left out: {suite}, {} tests: {missing}", file.tests);
            count.skipped += file.tests;
        } else {
            runnable.push(suite);
        }
    }
    Ok(runnable)
}

/// Names of all files of the tests with real peers.
pub(crate) fn suites() -> Result<Vec<String>> {
    build::integration_tests(|package| package == PACKAGE)
}

/// Names of the files of all other integration tests.
pub(crate) fn others() -> Result<Vec<String>> {
    build::integration_tests(|package| package != PACKAGE)
}
