//! Logs on standard error: for people on a terminal, JSON where asked for.

use std::io::{IsTerminal, stderr};

use anyhow::Result;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    cli::{Global, LogFormat},
    output::{Log, LogText},
    traces::Traces,
    usage::Usage,
};

/// What is too chatty at `info`, and the spans that are for traces alone.
const QUIET: &str = "libp2p=warn,fjall=warn,lsm_tree=warn,hyper=warn,rustls_acme=warn,pinfold::request=off";

/// Starts logging, and tracing where there is a collector.
///
/// # Errors
/// When `--log-level` is not a level or a filter.
pub(crate) fn start(global: &Global, traces: Option<&Traces>) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", global.log_level)).map_err(|error| {
        let level = &global.log_level;
        Usage(format!("--log-level {level:?} is neither a level such as info nor a filter: {error}"))
    })?;
    let text = match global.log_format {
        LogFormat::Text if stderr().is_terminal() => LogText::Coloured,
        LogFormat::Text => LogText::Plain,
        LogFormat::Json => LogText::Json,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(move || Log(text));
    let lines = match text {
        LogText::Json => lines.json().flatten_event(true).boxed(),
        text => lines.with_ansi(text == LogText::Coloured).with_target(false).boxed(),
    };
    let traces = traces.map(Traces::layer::<Registry>);
    tracing_subscriber::registry().with(traces).with(lines.with_filter(filter)).init();
    Ok(())
}
