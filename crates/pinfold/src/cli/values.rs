//! Values of flags: read once, so that a wrong one is wrong usage, named with
//! its flag before anything is opened.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{
    ArgMatches, Args, Command, FromArgMatches,
    error::{Error, ErrorKind},
    parser::ValueSource,
};
use pinfold_service::{Rate, RateLimits, TrustedProxies, db::Scope};
use std::path::PathBuf;
use url::Url;

/// A length of time, such as `90s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 90s, 15m, 4h or 30d"))
}

/// An amount of bytes, such as `20GB`.
pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "write 500MB, 20GB or 1.5TB (or GiB, TiB, which count by 1,024)".to_owned())
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

/// What a token may do.
pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "the scopes are pins:read and pins:write".into())
}

/// Limits of requests; none for no limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateChoice(pub(crate) Option<RateLimits>);

/// `on`, `off`, or figures that take the place of the defaults, such as
/// `writes=50/500,address=100/1000`.
pub(crate) fn rate_limits(text: &str) -> Result<RateChoice, String> {
    let mut limits = RateLimits::default();
    match text {
        "on" | "true" => return Ok(RateChoice(Some(limits))),
        "off" | "false" => return Ok(RateChoice(None)),
        _ => {}
    }
    for part in text.split(',') {
        let (name, figures) = part.split_once('=').unwrap_or((part, ""));
        let place = match name.trim() {
            "reads" => &mut limits.reads,
            "writes" => &mut limits.writes,
            "address" => &mut limits.address,
            _ => return Err("write on, off, or figures such as reads=1000/10000,writes=200/2000".into()),
        };
        *place = rate(figures).ok_or_else(|| {
            format!("{name} is requests a second and at once, both above 0, such as {name}=200/2000")
        })?;
    }
    Ok(RateChoice(Some(limits)))
}

fn rate(figures: &str) -> Option<Rate> {
    let (per_second, burst) = figures.split_once('/')?;
    Some(Rate { per_second: per_second.trim().parse().ok()?, burst: burst.trim().parse().ok()? })
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
    /// PostgreSQL as postgres://…; without it SQLite in the data folder. A URL with a password is
    /// given in the environment, the configuration file or --database-file
    #[arg(
        long,
        env = "PINFOLD_DATABASE",
        hide_env_values = true,
        hide_default_value = true,
        value_name = "URL"
    )]
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
    fn rates_are_on_off_or_figures() {
        let choice = |text| rate_limits(text).map(|RateChoice(limits)| limits);
        let (on, mut some) = (RateLimits::default(), RateLimits::default());
        assert_eq!((choice("on"), choice("off")), (Ok(Some(on)), Ok(None)));
        some.writes = rate("5/50").expect("two figures");
        assert_eq!(choice("writes=5/50"), Ok(Some(some)));
        some.address = rate("1/9").expect("two figures");
        assert_eq!(choice("address=1/9, writes=5/50"), Ok(Some(some)));
        for wrong in ["", "yes", "writes", "writes=5", "writes=0/5", "writes=5/0", "polls=1/1", "writes=1/2,"]
        {
            assert!(choice(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_bytes_with_a_unit() {
        let bytes = |text| size(text).map(|size| size.as_u64());
        for (text, wanted) in [("20GB", 20_000_000_000), ("1KiB", 1_024), ("1.5 MB", 1_500_000), ("7", 7)] {
            assert_eq!(bytes(text), Ok(wanted), "{text}");
        }
        for wrong in ["lots", "", "GB", "-1GB", "1XB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scopes_that_nothing_asks_for_are_refused() {
        assert_eq!(scope("pins:read"), Ok(Scope::PinsRead));
        for wrong in ["admin", "nope", ""] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
