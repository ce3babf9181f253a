//! Settings from a TOML file, laid beneath flags and environment variables.
//!
//! The file's values become the defaults of the flags, so that clap's own
//! precedence does the rest and `--help` shows what is in force. Keys are the
//! flags' names; a key that no flag of the command has is an error, unless
//! another command has it: one file may serve them all.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, parser::ValueSource};
use url::Url;

use crate::{cli::Cli, usage::Usage};

/// The platform's data folder for Pinfold.
pub(crate) fn default_data() -> PathBuf {
    directories::ProjectDirs::from("", "", "pinfold")
        .map_or_else(|| PathBuf::from("pinfold-data"), |dirs| dirs.data_dir().to_owned())
}

/// Parses the command line over the environment over the file over defaults.
///
/// Exits by itself, with status 2, where clap has something to say.
///
/// # Errors
/// When the file cannot be read or holds something else than settings, and
/// when a password is on the command line.
pub(crate) fn parse() -> Result<Cli> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let command = match config_file(&args) {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            lay_beneath(Cli::command(), &text)
                .map_err(|error| Usage(format!("in the configuration {}: {error:#}", path.display())))?
        }
        None => Cli::command(),
    };
    let matches = command.get_matches_from(args);
    if let Some(flag) = flag_with_password(&matches) {
        let variable = flag.replace('-', "_").to_uppercase();
        return Err(Usage(format!(
            "the URL of --{flag} holds a password, which `ps` shows to everyone on this machine: give it in the \
             environment as PINFOLD_{variable}, or as {flag:?} in the file of --config"
        ))
        .into());
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.exit())
}

/// The flag of the command line, if any, whose URL holds a password.
fn flag_with_password(matches: &ArgMatches) -> Option<String> {
    let is_open = |id: &&clap::Id| {
        // One of a command above is looked at there.
        matches.try_contains_id(id.as_str()).is_ok()
            && matches.value_source(id.as_str()) == Some(ValueSource::CommandLine)
            && matches
                .try_get_raw(id.as_str())
                .ok()
                .flatten()
                .is_some_and(|mut values| values.any(|value| value.to_str().is_some_and(has_password)))
    };
    let here = matches.ids().find(is_open).map(|id| id.as_str().replace('_', "-"));
    here.or_else(|| matches.subcommand().and_then(|(_, below)| flag_with_password(below)))
}

/// Whether a text is a URL with a password, in either place that PostgreSQL's
/// URLs have for one.
fn has_password(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    url.password().is_some_and(|password| !password.is_empty())
        || url.query_pairs().any(|(key, value)| key == "password" && !value.is_empty())
}

fn config_file(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("PINFOLD_CONFIG").map(PathBuf::from)
}

fn lay_beneath(command: Command, text: &str) -> Result<Command> {
    let table: toml::Table = text.parse()?;
    let known = flags_of(&command);
    let mut settings = Vec::new();
    for (key, value) in table {
        if !known.contains(&key) {
            bail!("{key:?} is not a setting; the keys are the names of the flags, see `pinfold up --help`");
        }
        settings.push((key.clone(), values(&value).with_context(|| format!("the value of {key:?}"))?));
    }
    Ok(with_defaults(command, &settings))
}

fn flags_of(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(flags_of)).collect()
}

fn values(value: &toml::Value) -> Result<Vec<String>> {
    Ok(match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Boolean(flag) => vec![flag.to_string()],
        toml::Value::Array(items) => {
            items.iter().map(values).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
            bail!("expected a text, a whole number, true, false or a list of them")
        }
    })
}

fn with_defaults(command: Command, settings: &[(String, Vec<String>)]) -> Command {
    let mut command = command.mut_args(|arg| with_default(arg, settings));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| with_defaults(sub, settings));
    }
    command
}

fn with_default(arg: Arg, settings: &[(String, Vec<String>)]) -> Arg {
    match settings.iter().find(|(key, _)| arg.get_long() == Some(key)) {
        Some((_, values)) => arg.default_values(values.clone()),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: &str, args: &[&str]) -> Cli {
        let command = lay_beneath(Cli::command(), config).expect("a good configuration");
        let matches = command.try_get_matches_from(args).expect("a good command line");
        Cli::from_arg_matches(&matches).expect("matches of Cli")
    }

    fn api(cli: &Cli) -> (String, usize) {
        match &cli.command {
            crate::cli::Command::Up(up) => (up.service.api.to_string(), up.node.swarm.len()),
            other => panic!("not up: {other:?}"),
        }
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file = "api = \"127.0.0.1:1\"\nswarm = [\"/ip4/127.0.0.1/tcp/1\", \"/ip4/127.0.0.1/tcp/2\"]";
        assert_eq!(api(&parse(file, &["pinfold", "up"])), ("127.0.0.1:1".into(), 2));
        assert_eq!(api(&parse(file, &["pinfold", "up", "--api", "127.0.0.1:2"])), ("127.0.0.1:2".into(), 2));
        assert_eq!(api(&parse("", &["pinfold", "up"])), ("127.0.0.1:8070".into(), 1));
    }

    fn database(config: &str, args: &[&str]) -> crate::cli::DatabaseChoice {
        match parse(config, &[&["pinfold", "up"], args].concat()).command {
            crate::cli::Command::Up(up) => up.data.database,
            other => panic!("not up: {other:?}"),
        }
    }

    #[test]
    fn the_nearest_name_of_the_database_counts() {
        use crate::cli::DatabaseChoice::{File, Sqlite, Url};
        let (by_url, by_file) = ("database = \"postgres://file\"", "database-file = \"file\"");
        assert_eq!(database("", &[]), Sqlite);
        assert_eq!(database(by_url, &[]), Url("postgres://file".into()));
        assert_eq!(database(by_url, &["--database-file", "flag"]), File("flag".into()));
        assert_eq!(database(by_file, &["--database", "postgres://flag"]), Url("postgres://flag".into()));
        assert_eq!(database(by_url, &["--database", "postgres://flag"]), Url("postgres://flag".into()));
    }

    #[test]
    fn flags_without_a_value_are_keys_too() {
        let migrate = |config: &str, args: &[&str]| match parse(config, args).command {
            crate::cli::Command::Service(service) => service.service.migrate,
            other => panic!("not service: {other:?}"),
        };
        assert!(migrate("migrate = true", &["pinfold", "service"]));
        assert!(!migrate("migrate = false", &["pinfold", "service"]));
        assert!(migrate("migrate = false", &["pinfold", "service", "--migrate"]));
    }

    #[test]
    fn a_password_on_the_command_line_is_found_and_elsewhere_left_alone() {
        let flag = |config: &str, args: &[&str]| {
            let command = lay_beneath(Cli::command(), config).expect("a good configuration");
            flag_with_password(&command.try_get_matches_from(args).expect("a good command line"))
        };
        let open = "postgres://ann:secret@db.example/pinfold";
        for (args, named) in [
            (&["up", "--database", open][..], Some("database")),
            (
                &["up", "--database", "postgres://db.example/pinfold?user=ann&password=secret"],
                Some("database"),
            ),
            (&["node", "run", "--router", "https://a.example,https://ann:secret@b.example"], Some("router")),
            (&["pin", "--endpoint", "https://ann:secret@a.example", "ls"], Some("endpoint")),
            (&["pin", "ls", "--endpoint", "https://ann:secret@a.example"], Some("endpoint")),
            (&["token", "ls", "--database", "postgres://ann@db.example/pinfold"], None),
            (&["up", "--otlp", "http://127.0.0.1:4318"], None),
        ] {
            assert_eq!(flag("", &[&["pinfold"], args].concat()).as_deref(), named, "{args:?}");
        }
        assert_eq!(flag(&format!("database = {open:?}"), &["pinfold", "up"]), None);
    }

    #[test]
    fn help_shows_no_password_of_the_file() {
        let file =
            "database = \"postgres://ann:secret@db.example/x\"\notlp = \"http://ann:secret@c.example\"";
        let mut command = lay_beneath(Cli::command(), file).expect("a good configuration");
        let up = command.find_subcommand_mut("up").expect("it is there");
        let help = up.render_long_help().to_string();
        assert!(help.contains("--database <URL>") && !help.contains("secret@"), "{help}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = lay_beneath(Cli::command(), "apy = 1").expect_err("a misspelt key");
        assert!(error.to_string().contains("\"apy\""), "{error}");
    }
}
