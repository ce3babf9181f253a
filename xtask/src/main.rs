//! The project's own tool. `cargo xtask test` is the test command of the
//! README: it installs every peer and tool that the tests need, each in a
//! pinned version, into a cache outside of the checkout, and runs everything.
//!
//! A command is a list of stages ([`report`]); what cannot run on this
//! machine is left out, counted and named at the end, never skipped silently.

mod cache;
mod commands;
mod layers;
mod peers;
mod process;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own tool", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing, then run every check and test
    Test,
    /// Install every peer and tool of the tests, and print where each is
    Peers,
    /// Build the product and run the tests with real peers, or one file of them
    E2e {
        /// Name of a file in e2e/tests, without `.rs`
        suite: Option<String>,
        /// Arguments for the test runner, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Keep the layers apart: what each crate must not depend on
    Layers,
    /// Check licences, banned crates and sources of the dependencies
    Deny,
    /// Check the dependencies for known vulnerabilities (needs the advisory database)
    Advisories,
    /// The long version of the tests of failures: kills, power loss, disks, PostgreSQL, clock
    Faults {
        /// How often each crash test kills the product; power is lost ten times as often
        #[arg(long, default_value_t = 1_000)]
        rounds: u32,
    },
    /// Measure the release binary beside its peers, and print the table
    Bench(commands::bench::Choice),
    /// Build the release binary; check its size and the time that it took
    ReleaseCheck,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; false when a check of it failed.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Test => commands::test::run(),
        Command::Peers => commands::peers::run(),
        Command::E2e { suite, arguments } => commands::e2e::run(suite.as_deref(), &arguments),
        Command::Layers => commands::one("layers", layers::check),
        Command::Deny => commands::deny::run(),
        Command::Advisories => commands::deny::advisories(),
        Command::Faults { rounds } => commands::faults::run(rounds),
        Command::Bench(choice) => commands::bench::run(&choice),
        Command::ReleaseCheck => commands::release_check::run(),
    }
}
