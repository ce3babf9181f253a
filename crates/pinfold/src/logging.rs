//! Logs on standard error: for people on a terminal, JSON where asked for.

use std::io::{IsTerminal, stderr};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::cli::{Global, LogFormat};

/// What is too chatty at `info`.
const QUIET: &str = "libp2p=warn,fjall=warn,lsm_tree=warn,hyper=warn";

/// Starts logging.
///
/// # Errors
/// When `--log-level` is not a level or a filter.
pub(crate) fn start(global: &Global) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", global.log_level)).with_context(|| {
        format!("--log-level {:?} is neither a level such as info nor a filter", global.log_level)
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match global.log_format {
        LogFormat::Text => subscriber.with_ansi(stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
