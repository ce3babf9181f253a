//! Commands on a service's data, and the client of any service.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use pinfold_service::db::Scope;

use super::{
    DataArgs, UpArgs,
    values::{duration, endpoint, scope, size},
};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is printed once, alone, on standard output
    Create {
        #[command(flatten)]
        data: DataArgs,
        /// What to call it
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The account that it acts for
        #[arg(long, default_value = crate::commands::DEFAULT_ACCOUNT, value_name = "ACCOUNT")]
        account: String,
        /// What it may do
        #[arg(long, default_value = "pins:read,pins:write", value_delimiter = ',', value_name = "SCOPES",
              value_parser = scope)]
        scope: Vec<Scope>,
        /// When it ends, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// List tokens
    Ls {
        #[command(flatten)]
        data: DataArgs,
        /// Only this account's
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token; it stops working at once
    Revoke {
        #[command(flatten)]
        data: DataArgs,
        /// Its id, from `token ls`
        id: uuid::Uuid,
    },
    /// Sign new tokens with a new key; tokens of older keys stay valid until they are revoked
    Rotate {
        #[command(flatten)]
        data: DataArgs,
        /// The secret file is lost, or another was put in its place: make one where there is none, and
        /// end every token. Services must be started again
        #[arg(long)]
        lost_secret: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account
    Create {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
        /// What it may store; by default as --free-quota says
        #[arg(long, value_name = "SIZE", value_parser = size)]
        quota: Option<ByteSize>,
        /// What a new account may store where nothing else is said
        #[arg(long, env = "PINFOLD_FREE_QUOTA", default_value = "20GB", value_name = "SIZE",
              value_parser = size)]
        free_quota: ByteSize,
    },
    /// List accounts with what they use
    Ls {
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what an account may store
    Quota {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
        /// The new limit
        #[arg(value_parser = size)]
        size: ByteSize,
    },
    /// Refuse an account's tokens; its pins are kept
    Disable {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
    },
    /// Accept a disabled account's tokens again
    Enable {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
    },
    /// Remove an account with its tokens and pins
    Rm {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
        /// Really; what it alone pins is deleted from the nodes
        #[arg(long)]
        yes: bool,
    },
    /// List what operators did, newest first
    Audit {
        #[command(flatten)]
        data: DataArgs,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print an account's pins, one JSON object a line
    Export {
        #[command(flatten)]
        data: DataArgs,
        /// Its name
        name: String,
    },
}

/// A client of any endpoint.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// The endpoint
    #[arg(
        long,
        global = true,
        env = "PINFOLD_ENDPOINT",
        default_value = "http://127.0.0.1:8070",
        value_name = "URL",
        value_parser = endpoint
    )]
    pub(crate) endpoint: String,
    /// File that holds the access token
    #[arg(long, global = true, env = "PINFOLD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: PinCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Pin a CID and wait until it is pinned
    Add {
        /// The CID
        cid: String,
        /// A name to find it by
        #[arg(long)]
        name: Option<String>,
        /// Multiaddrs of peers that have it
        #[arg(long, value_delimiter = ',', value_name = "MULTIADDR")]
        origin: Vec<String>,
        /// Do not wait
        #[arg(long)]
        background: bool,
    },
    /// List pins, newest first
    Ls {
        /// Statuses wanted
        #[arg(long, default_value = "queued,pinning,pinned,failed", value_delimiter = ',')]
        status: Vec<String>,
        /// Only pins with this name
        #[arg(long)]
        name: Option<String>,
        /// Only pins of these CIDs
        #[arg(long, value_delimiter = ',')]
        cid: Vec<String>,
    },
    /// Remove pins by their request ids
    Rm {
        /// Request ids
        #[arg(required = true)]
        requestid: Vec<String>,
    },
    /// Show one pin
    Status {
        /// Its request id
        requestid: String,
    },
    /// Pin every CID of a file: one a line, a name may follow after a space
    Import {
        /// The file; `-` reads standard input
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DenylistCommand {
    /// Add a rule, such as /ipfs/CID or /ipfs/CID/path/*
    Add {
        #[command(flatten)]
        data: DataArgs,
        /// The rule
        rule: String,
    },
    /// Remove a rule
    Rm {
        #[command(flatten)]
        data: DataArgs,
        /// The rule
        rule: String,
    },
    /// List the rules in the database
    Ls {
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add the rules of a file in the compact format of IPIP-383 to the database
    Import {
        #[command(flatten)]
        data: DataArgs,
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List what is not held yet
    Ls {
        #[command(flatten)]
        data: DataArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try waiting contents again now
    Retry {
        #[command(flatten)]
        data: DataArgs,
        /// Only this root
        cid: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The file to write; must not exist
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["file", "after_postgres", "confirm"])))]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The backup; the secret that seals its token keys is taken from FILE.secret where that exists
    pub(crate) file: Option<PathBuf>,
    /// PostgreSQL was restored with its own tools: say so before any service starts
    #[arg(long)]
    pub(crate) after_postgres: bool,
    /// Let nodes delete what they hold and the restored database does not know; the service must run, and
    /// all live nodes must have said what they hold
    #[arg(long)]
    pub(crate) confirm: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The settings that are checked: those of `up`, and of `service` as far as it has them
    #[command(flatten)]
    pub(crate) up: UpArgs,
    /// Also reread every block and recompute its hash; `up` must not run
    #[arg(long)]
    pub(crate) blocks: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
