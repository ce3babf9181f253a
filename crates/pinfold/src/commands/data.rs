//! Where a service's data are, and how commands open them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use pinfold_service::{
    db::{Account, Database, Location, Settings},
    tokens::{Keyring, Secret},
};

use crate::{
    cli::{DataArgs, DatabaseChoice},
    usage::wrong_usage,
};

/// The database in a data folder.
const DATABASE_FILE: &str = "pinfold.db";
/// The secret that seals the token keys in a data folder.
const SECRET_FILE: &str = "secret";
/// What the audit table calls the command line.
pub(super) const ACTOR: &str = "command line";

impl DataArgs {
    /// Where the database is.
    pub(crate) fn location(&self) -> Result<Location> {
        let url = match &self.database {
            DatabaseChoice::Sqlite => return Ok(Location::Sqlite(self.data.join(DATABASE_FILE))),
            DatabaseChoice::Url(url) => url.clone(),
            DatabaseChoice::File(file) => read_line(file)?,
        };
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            wrong_usage!("the database's URL does not begin with postgres://; leave it out for SQLite");
        }
        Ok(Location::Postgres(url))
    }

    /// Settings of the database with the service's defaults.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::new(self.location()?);
        if let Location::Postgres(_) = settings.location {
            settings.pool = self.database_pool as usize;
        }
        Ok(settings)
    }

    /// The same for a command, which the audit table names.
    pub(crate) fn settings_of_command(&self) -> Result<Settings> {
        Ok(Settings { actor: ACTOR.to_owned(), ..self.settings()? })
    }

    /// Opens a database that exists already.
    pub(crate) async fn open(&self) -> Result<Database> {
        let mut settings = self.settings_of_command()?;
        settings.migrate = false;
        if let Location::Sqlite(file) = &settings.location
            && !file.exists()
        {
            bail!(
                "there is no database {}; `pinfold up` makes one, --data names another folder",
                file.display()
            );
        }
        let place = named(&settings.location);
        Database::open(settings).await.with_context(|| format!("cannot open the database {place}"))
    }

    /// The file with the secret that seals the token keys.
    pub(crate) fn secret_path(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| self.data.join(SECRET_FILE))
    }

    /// The keys that sign tokens.
    pub(crate) async fn keyring(&self, database: &Database) -> Result<Keyring> {
        Ok(Keyring::open(database.clone(), self.secret()?).await?)
    }

    /// The secret that sealed the keys in the database.
    pub(crate) fn secret(&self) -> Result<Secret> {
        Secret::read(&self.secret_path()).context(
            "the database has token keys, and the secret that sealed them is not here: put it there (a backup \
             has it beside it, as FILE.secret), or name it with --secret-file; where it is lost, \
             `pinfold token rotate --lost-secret` ends all tokens and begins anew",
        )
    }
}

/// What a database is called in messages, which never name a password.
pub(crate) fn named(location: &Location) -> String {
    match location {
        Location::Sqlite(file) => file.display().to_string(),
        Location::Postgres(_) => "on PostgreSQL".to_owned(),
    }
}

/// The account with this name.
pub(crate) async fn account(database: &Database, name: &str) -> Result<Account> {
    database.account_by_name(name).await?.with_context(|| {
        format!("there is no account {name:?}; `pinfold account ls` lists them, `pinfold account create` makes one")
    })
}

/// The first line of a small file, trimmed.
fn read_line(file: &std::path::Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}
