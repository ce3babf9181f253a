//! One module per command.

mod pin;

use std::{borrow::Cow, process::ExitCode};

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Command};

/// The account that `up` makes on its first start.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Pin(args) => pin::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pinfold", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)?;
            clap_mangen::generate_to(Cli::command(), &directory)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Text from outside, made safe for a terminal: control characters are
/// written as their escapes.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\n') {
        text.chars()
            .map(|c| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}"), "a\\u{1b}[31mb\\u{9b}");
        assert_eq!(printable("zwölf\nCIDs"), "zwölf\nCIDs");
    }
}
