//! The command line: every command, flag, environment variable and default.
//!
//! Each setting is a flag, an environment variable `PINFOLD_…` and a key of
//! the TOML file named by `--config`, in that order of precedence; the file
//! is laid beneath by [`crate::config`].

mod manage;
mod node;
mod tls;
mod values;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

pub(crate) use self::{
    manage::{
        AccountCommand, BackupArgs, CheckArgs, DenylistCommand, MigrateArgs, PinArgs, PinCommand,
        QueueCommand, RestoreArgs, TokenCommand,
    },
    node::{NetworkName, NodeArgs, NodeCommand, NodeRunArgs, Switch},
    values::{DatabaseChoice, RateChoice},
};
use self::{
    tls::TlsArgs,
    values::{DatabaseChoice as Choice, duration},
};

/// Keeps IPFS files when your own machine is off: a pinning service and its
/// storage nodes in one binary.
#[derive(Debug, Parser)]
#[command(name = "pinfold", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Where flags of every command stand in its help: below its own.
const LAST: usize = 1_000;

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// TOML file with settings; its keys are the flags' names
    #[arg(long, global = true, env = "PINFOLD_CONFIG", value_name = "FILE", display_order = LAST)]
    pub(crate) config: Option<PathBuf>,
    /// How much to log: off, error, warn, info, debug, trace, or a filter such as `pinfold_node=debug`
    #[arg(long, global = true, env = "PINFOLD_LOG_LEVEL", default_value = "info", value_name = "LEVEL",
          display_order = LAST)]
    pub(crate) log_level: String,
    /// How to log
    #[arg(long, global = true, env = "PINFOLD_LOG_FORMAT", default_value = "text", value_name = "FORMAT",
          display_order = LAST)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a service and one node in one process, on this machine
    Up(Box<UpArgs>),
    /// Run a service alone; any number of them side by side on one PostgreSQL
    Service(Box<ServiceCommand>),
    /// Run a storage node
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make, list and change accounts
    #[command(subcommand)]
    Account(AccountCommand),
    /// Pin with any endpoint of the IPFS Pinning Service API
    Pin(PinArgs),
    /// Refuse content: add, remove, list and import rules
    #[command(subcommand)]
    Denylist(DenylistCommand),
    /// What waits to be fetched, and why
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Copy the database and its keys to a file, while the service runs
    Backup(BackupArgs),
    /// Bring a backup into a new data folder
    Restore(RestoreArgs),
    /// Bring the database to this version
    Migrate(MigrateArgs),
    /// Check the configuration, the database, the block store and reachability; says what to do
    Check(Box<CheckArgs>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    Man {
        /// The folder; made if it is missing
        directory: PathBuf,
    },
}

/// Where a service's data are.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataArgs {
    /// Folder for everything that is kept
    #[arg(long, env = "PINFOLD_DATA", default_value_os_t = crate::config::default_data(), value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: Choice,
    /// File with the secret that seals the token keys; default: `secret` in the data folder
    #[arg(long, env = "PINFOLD_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Connections to PostgreSQL
    #[arg(long, env = "PINFOLD_DATABASE_POOL", default_value_t = 16, value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub(crate) database_pool: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Durable copies before a pin is `pinned`, and copies aimed for
    #[arg(long, env = "PINFOLD_REPLICAS", default_value = "1/1", value_name = "MIN/TARGET")]
    pub(crate) replicas: Replicas,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceCommand {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    /// Durable copies before a pin is `pinned`, and copies aimed for
    #[arg(long, env = "PINFOLD_REPLICAS", default_value = "2/3", value_name = "MIN/TARGET")]
    pub(crate) replicas: Replicas,
}

/// What `up` and `service` share.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Where the Pinning Service API listens
    #[arg(long, env = "PINFOLD_API", default_value = "127.0.0.1:8070", value_name = "ADDRESS")]
    pub(crate) api: SocketAddr,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Where metrics are served; off by default
    #[arg(long, env = "PINFOLD_METRICS", value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Send traces of requests to this OpenTelemetry collector, by OTLP over HTTP, such as
    /// http://127.0.0.1:4318
    #[arg(long, env = "PINFOLD_OTLP", hide_env_values = true, hide_default_value = true, value_name = "URL",
          value_parser = values::http_url)]
    pub(crate) otlp: Option<Url>,
    /// The endpoint as users reach it, such as https://pins.example.org
    #[arg(long, env = "PINFOLD_PUBLIC_URL", value_name = "URL", value_parser = values::endpoint)]
    pub(crate) public_url: Option<String>,
    /// Addresses or networks of proxies whose X-Forwarded-For is believed
    #[arg(long, env = "PINFOLD_TRUSTED_PROXY", value_delimiter = ',', value_name = "NETWORK",
          value_parser = values::network)]
    pub(crate) trusted_proxy: Vec<String>,
    /// How long a copy may be unreachable before another is made
    #[arg(long, env = "PINFOLD_REPAIR_AFTER", default_value = "4h", value_name = "TIME", value_parser = duration)]
    pub(crate) repair_after: Duration,
    /// How long a fetch may make no progress before its pins fail
    #[arg(long, env = "PINFOLD_PIN_DEADLINE", default_value = "24h", value_name = "TIME", value_parser = duration)]
    pub(crate) pin_deadline: Duration,
    /// What a new account may store
    #[arg(long, env = "PINFOLD_FREE_QUOTA", default_value = "20GB", value_name = "SIZE", value_parser = values::size)]
    pub(crate) free_quota: ByteSize,
    /// Pins that one account may have waiting
    #[arg(long, env = "PINFOLD_MAX_QUEUED", default_value_t = 100_000, value_name = "N")]
    pub(crate) max_queued: u64,
    /// Limit requests: on by itself, except in `up` without --public-url. Figures are requests a second
    /// and at once, of each account or client address, of all services together; by default
    /// reads=1000/10000,writes=200/2000,address=5000/50000
    #[arg(long, env = "PINFOLD_RATE_LIMITS", value_name = "on|off|FIGURES", value_parser = values::rate_limits)]
    pub(crate) rate_limits: Option<RateChoice>,
    /// Denylist file in the compact format of IPIP-383; reloaded when it changes
    #[arg(long, env = "PINFOLD_DENYLIST", value_name = "FILE")]
    pub(crate) denylist: Option<PathBuf>,
    /// Peer ids of the operator's own nodes, whose word settles a pin
    #[arg(long, env = "PINFOLD_OPERATOR_NODE", value_delimiter = ',', value_name = "PEER_ID",
          value_parser = values::peer_id)]
    pub(crate) operator_node: Vec<String>,
    /// Bring the database to this version before serving; `up` always does
    #[arg(long, env = "PINFOLD_MIGRATE")]
    pub(crate) migrate: bool,
    /// Log every request
    #[arg(long, env = "PINFOLD_ACCESS_LOG", default_value = "on", value_name = "on|off")]
    pub(crate) access_log: Switch,
    /// Let pins be fetched from private and loopback addresses: on by itself only in `up` without
    /// --public-url
    #[arg(long, env = "PINFOLD_ALLOW_PRIVATE_ADDRESSES", value_name = "on|off")]
    pub(crate) allow_private_addresses: Option<Switch>,
}

impl ServiceArgs {
    /// The endpoint as users reach it, where that is said.
    pub(crate) fn public_url(&self) -> Option<String> {
        self.public_url.clone().or_else(|| self.tls.public_url())
    }

    /// The endpoint under an address of its listener.
    pub(crate) fn endpoint(&self, api: SocketAddr) -> String {
        format!("{}://{api}", if self.tls.is_on() { "https" } else { "http" })
    }
}

impl Command {
    /// The collector of a command's traces.
    pub(crate) fn otlp(&self) -> Option<&Url> {
        match self {
            Self::Up(args) => args.service.otlp.as_ref(),
            Self::Service(args) => args.service.otlp.as_ref(),
            _ => None,
        }
    }
}

/// `MIN/TARGET`, such as `2/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) min: u32,
    pub(crate) target: u32,
}

/// The most copies of one content.
const MAX_REPLICAS: u32 = 64;

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed =
            text.split_once('/').and_then(|(min, target)| Some((min.parse().ok()?, target.parse().ok()?)));
        match parsed {
            Some((min, target)) if 1 <= min && min <= target && target <= MAX_REPLICAS => {
                Ok(Self { min, target })
            }
            _ => Err(format!(
                "expected MIN/TARGET such as 2/3, with 1 <= MIN <= TARGET <= {MAX_REPLICAS}, got {text:?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Those in a block of its own and those within a sentence.
    #[test]
    fn commands_in_the_documents_are_understood() {
        const DOCUMENT: &str = include_str!("../../../docs/operating.md");
        let document = DOCUMENT.replace("\\\n", " ");
        let shown = document.lines().filter_map(|line| line.strip_prefix("$ ")?.split("  #").next());
        let told = document.split('`').filter(|part| !part.contains('\n'));
        let mut understood = 0;
        for line in shown.chain(told).filter(|line| line.starts_with("pinfold ")) {
            let line = line
                .replace("COMMAND", "up")
                .replace("12D3KooW…", "12D3KooWGRUEvi1BNbbFUTEEt7MYgrUjTKLbP3GiPJGtMDjNvYtk")
                .replace(" ID", " 01909b5e-5d3c-7a7e-9c56-0f1e2d3c4b5a");
            match Cli::command().try_get_matches_from(line.split_whitespace()) {
                Err(error) if error.kind() != clap::error::ErrorKind::DisplayHelp => {
                    panic!("{line}: {error}")
                }
                _ => understood += 1,
            }
        }
        assert!(understood > 20, "only {understood} were found");
    }

    #[test]
    fn replicas_are_ordered() {
        assert_eq!("2/3".parse(), Ok(Replicas { min: 2, target: 3 }));
        for wrong in ["", "2", "0/1", "3/2", "1/65", "a/b"] {
            assert!(wrong.parse::<Replicas>().is_err(), "{wrong}");
        }
    }
}
