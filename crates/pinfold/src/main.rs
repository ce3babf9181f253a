//! The `pinfold` binary: commands, configuration and wiring. What the commands
//! do lives in `pinfold-service` and `pinfold-node`.

#![deny(clippy::print_stdout, clippy::print_stderr)] // What others said is escaped in `output`.

mod cli;
mod commands;
mod config;
mod logging;
mod output;
mod progress;
mod traces;
mod usage;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use self::{traces::Traces, usage::Usage};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        // Whoever read the output has had enough of it.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("pinfold: {}", whole(&error)));
            match error.downcast_ref::<Usage>() {
                Some(_) => usage::STATUS.into(),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// An error with its causes, each of them once: many messages name theirs.
fn whole(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run() -> Result<ExitCode> {
    let cli = config::parse()?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is set already")?;
    let runtime = runtime()?;
    let traces = cli.command.otlp().map(|url| Traces::new(url, runtime.handle().clone())).transpose()?;
    logging::start(&cli.global, traces.as_ref())?;
    let result = runtime.block_on(commands::run(cli.command));
    if let Some(traces) = traces {
        traces.stop();
    }
    // What still runs was asked to end, or is of a start that failed.
    runtime.shutdown_timeout(LAST_TASKS);
    result
}

/// How long tasks that nobody waits for may take to end.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Threads for what blocks: the disk, and hashing blocks. More would only
/// hold more stacks; work waits in bounded queues before it.
const BLOCKING_THREADS: usize = 16;

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime's threads")
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::Error::new(Error::other("the disk is full")).context("cannot write b");
        assert_eq!(whole(&error), "cannot write b: the disk is full");
        let error = error.context("cannot write b: the disk is full; free some");
        assert_eq!(whole(&error), "cannot write b: the disk is full; free some");
    }
}
