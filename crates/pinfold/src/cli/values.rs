//! Values of flags: read once, so that a wrong one is wrong usage, named with
//! its flag before anything is opened.

use std::time::Duration;

use clap::{
    ArgMatches, Args, Command, FromArgMatches,
    error::{Error, ErrorKind},
    parser::ValueSource,
};
use pinfold_service::{TrustedProxies, db::Scope, tokens};
use std::path::PathBuf;
use url::Url;

/// A length of time, such as `90s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 15m, 4h or 30d"))
}

/// The URL of something that speaks HTTP.
pub(crate) fn http_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}; write https://example.org"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("not the URL of something that speaks HTTP; write https://example.org".into()),
    }
}

/// An endpoint as users write it: paths are put after it.
pub(crate) fn endpoint(text: &str) -> Result<String, String> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an endpoint ends with its path, without ? and #".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// An address, or a network as `10.0.0.0/8`.
pub(crate) fn network(text: &str) -> Result<String, String> {
    TrustedProxies::parse([text]).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// The peer id of a node.
pub(crate) fn peer_id(text: &str) -> Result<String, String> {
    pinfold_node::peer_key(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// What a token may do. `admin` is reserved: nothing asks for it yet.
pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    match tokens::parse_scope(text) {
        Some(scope @ (Scope::PinsRead | Scope::PinsWrite)) => Ok(scope),
        _ => Err("the scopes are pins:read and pins:write".into()),
    }
}

/// Which database: the one that was named nearest, by a flag, then by the
/// environment, then by the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseChoice {
    /// SQLite in the data folder.
    Sqlite,
    /// This URL.
    Url(String),
    /// The URL that this file holds.
    File(PathBuf),
}

/// The two flags that name a database.
#[derive(Debug, Args)]
struct DatabaseFlags {
    /// PostgreSQL as postgres://…; without it SQLite in the data folder. A URL with a password belongs
    /// into the environment, the configuration file or --database-file
    #[arg(long, env = "PINFOLD_DATABASE", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    /// File that holds the database's URL
    #[arg(long, env = "PINFOLD_DATABASE_FILE", value_name = "FILE")]
    database_file: Option<PathBuf>,
}

impl Args for DatabaseChoice {
    fn augment_args(command: Command) -> Command {
        DatabaseFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        DatabaseFlags::augment_args_for_update(command)
    }
}

impl FromArgMatches for DatabaseChoice {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let flags = DatabaseFlags::from_arg_matches(matches)?;
        match (flags.database, flags.database_file) {
            (None, None) => Ok(Self::Sqlite),
            (Some(url), None) => Ok(Self::Url(url)),
            (None, Some(file)) => Ok(Self::File(file)),
            (Some(url), Some(file)) => {
                let (url_from, file_from) =
                    (nearness(matches, "database"), nearness(matches, "database_file"));
                match url_from.cmp(&file_from) {
                    std::cmp::Ordering::Greater => Ok(Self::Url(url)),
                    std::cmp::Ordering::Less => Ok(Self::File(file)),
                    std::cmp::Ordering::Equal => Err(Error::raw(
                        ErrorKind::ArgumentConflict,
                        "the database is named twice, by its URL and by a file; leave one of them out\n",
                    )),
                }
            }
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How near to the caller a value was given: a flag is nearest.
fn nearness(matches: &ArgMatches, id: &str) -> u8 {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        // The configuration file's values are laid beneath as defaults.
        Some(_) => 1,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_http() {
        assert!(http_url("https://pins.example.org").is_ok());
        for wrong in ["nonsense", "ftp://a.example", "http:", "127.0.0.1:80", ""] {
            assert!(http_url(wrong).is_err(), "{wrong}");
        }
        assert_eq!(endpoint("https://a.example/x/").as_deref(), Ok("https://a.example/x"));
        assert!(endpoint("https://a.example/?a=b").is_err());
    }

    #[test]
    fn scopes_that_grant_nothing_are_refused() {
        assert_eq!(scope("pins:read"), Ok(Scope::PinsRead));
        for wrong in ["admin", "nope", ""] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
