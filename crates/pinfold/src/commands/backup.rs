//! `pinfold backup`, `restore` and `migrate`.
//!
//! A backup is two files: the database, and beside it, as `FILE.secret`, the
//! secret that sealed its token keys; without the second the first can verify
//! no token.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use pinfold_service::db::{Database, Location};

use super::serve;
use crate::{
    cli::{BackupArgs, DataArgs, MigrateArgs, RestoreArgs},
    output::say,
    progress::Meter,
};

/// What a backup's name has more where the secret is.
const SECRET: &str = ".secret";
/// What takes long in both directions.
const COPYING: &str = "copying the database";

pub(crate) async fn backup(args: BackupArgs) -> Result<()> {
    let beside = secret_beside(&args.file);
    if beside.exists() {
        bail!("{} exists; name a file that does not", beside.display());
    }
    let database = args.data.open().await?;
    let meter = Meter::new(COPYING, "pages");
    let copied = meter.watch(database.backup(&args.file, meter.counts())).await;
    database.close().await;
    copied.with_context(|| format!("cannot back up to {}", args.file.display()))?;
    copy_private(&args.data.secret_path(), &beside).with_context(|| {
        format!("{} holds the database, but not yet the secret of its token keys", args.file.display())
    })?;
    say(&format!(
        "{} holds the database, {} the secret of its token keys. Keep both, where nobody else reads them.",
        args.file.display(),
        beside.display()
    ));
    Ok(())
}

pub(crate) async fn restore(args: RestoreArgs) -> Result<()> {
    match &args.file {
        Some(file) => restore_file(&args.data, file).await,
        None if args.confirm => confirm(&args.data).await,
        None => after_postgres(&args.data).await,
    }
}

async fn restore_file(data: &DataArgs, file: &Path) -> Result<()> {
    serve::make_private_dir(&data.data)?;
    let (beside, path) = (secret_beside(file), data.secret_path());
    let placed = place_secret(&beside, &path)?;
    let (settings, meter) = (data.settings_of_command()?, Meter::new(COPYING, "pages"));
    if let Err(error) = meter.watch(Database::restore(file, &settings, meter.counts())).await {
        if placed {
            // Nothing was restored that it belongs to.
            let _ = fs::remove_file(&path);
        }
        return Err(error).context("cannot restore the backup");
    }
    if !path.exists() {
        say(&format!(
            "There is no {}: put the secret of this database at {} before it is started.",
            beside.display(),
            path.display()
        ));
    }
    say("Restored. Nodes keep what this older database does not know; once they all run again, \
         `pinfold restore --confirm` lets them delete it.");
    Ok(())
}

/// Puts a backup's secret where the service reads it; answers whether it did.
fn place_secret(beside: &Path, path: &Path) -> Result<bool> {
    if !beside.exists() {
        return Ok(false);
    }
    if !path.exists() {
        copy_private(beside, path)?;
        return Ok(true);
    }
    let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    if read(beside)?.trim_ascii_end() == read(path)?.trim_ascii_end() {
        return Ok(false);
    }
    bail!(
        "{} is another secret than the backup's; move it away, or name the place of this one with --secret-file",
        path.display()
    )
}

async fn confirm(data: &DataArgs) -> Result<()> {
    let database = data.open().await?;
    let released = database.release_strays().await.context("nothing is confirmed")?;
    database.close().await;
    say(&format!(
        "{released} contents that the database does not know are let go by the nodes that hold them."
    ));
    Ok(())
}

async fn after_postgres(data: &DataArgs) -> Result<()> {
    if let Location::Sqlite(file) = data.location()? {
        bail!(
            "{} is SQLite: `pinfold restore FILE` restores it and needs nothing after it; --database names \
             PostgreSQL",
            file.display()
        );
    }
    let database = data.open().await?;
    let generation = database.begin_generation().await?;
    database.close().await;
    say(&format!(
        "Generation {generation} has begun. Start the services; once all nodes run again, \
         `pinfold restore --confirm` lets them delete what this older database does not know."
    ));
    Ok(())
}

pub(crate) async fn migrate(args: MigrateArgs) -> Result<()> {
    let (settings, meter) =
        (args.data.settings_of_command()?, Meter::new("migrating the database", "versions"));
    let migrated = meter.watch(Database::migrate(&settings)).await;
    let version = migrated.context("cannot migrate the database")?;
    say(&format!("The database has schema {version}."));
    Ok(())
}

fn secret_beside(backup: &Path) -> PathBuf {
    let mut name = backup.as_os_str().to_owned();
    name.push(SECRET);
    name.into()
}

/// Copies a small file to a place where none is, for its owner alone. It is on
/// disk when this returns.
fn copy_private(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read the secret {}", from.display()))?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(to).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", to.display()))
}
