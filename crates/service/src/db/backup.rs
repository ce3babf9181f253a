//! Backing up an SQLite database while it is in use, and restoring one.
//!
//! A backup is one consistent snapshot, written beside its final name and
//! renamed when it is on disk. A restored database knows fewer pins than the
//! nodes hold: it starts a new generation, and nodes delete nothing until the
//! operator has confirmed it ([`super::Database::release_strays`]), which needs
//! the inventories of all live nodes. For PostgreSQL its own tools do both, and
//! [`super::Database::begin_generation`] the rest.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{
    OpenFlags,
    backup::{Backup, StepResult},
};

use super::{
    engine::open_writer,
    error::{Error, Result},
    schema,
    settings::{Location, Settings},
};

const NOT_SQLITE: &str = "PostgreSQL is backed up and restored with its own tools (pg_dump or pg_basebackup); \
    after a restore, run `pinfold restore --after-postgres` before any service starts";

/// Pages copied between two words about it: some MiB.
const STEP: i32 = 1_024;

fn sqlite_file(settings: &Settings) -> Result<&Path> {
    match &settings.location {
        Location::Sqlite(file) => Ok(file),
        Location::Postgres(_) => Err(Error::Invalid(NOT_SQLITE.into())),
    }
}

fn failed(what: &str, file: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{what} {}", file.display());
    move |source| Error::File { what, source }
}

/// Told how many pages are copied, and of how many.
type Told<'a> = &'a (dyn Fn(u64, u64) + Send);

/// Copies the database into `to`, which must not exist.
pub(crate) fn backup(settings: &Settings, to: &Path, told: Told<'_>) -> Result<()> {
    copy(sqlite_file(settings)?, to, told)
}

/// Puts a backup where `settings` say, where no database is yet.
pub(crate) async fn restore(
    from: &Path,
    settings: &Arc<Settings>,
    told: impl Fn(u64, u64) + Send + 'static,
) -> Result<()> {
    let part = {
        let (from, settings) = (from.to_owned(), Arc::clone(settings));
        let copied = tokio::task::spawn_blocking(move || copy_beside(&from, &settings, &told));
        copied.await.map_err(|_| Error::Closed)??
    };
    begin_generation(&part, from, settings).await?;
    let place = sqlite_file(settings)?;
    fs::rename(&part, place).map_err(failed("renaming to", place))?;
    sync_directory(place)
}

/// Copies a sound backup to beside where it belongs.
fn copy_beside(from: &Path, settings: &Settings, told: Told<'_>) -> Result<PathBuf> {
    let place = sqlite_file(settings)?;
    if place.exists() && !is_empty(place)? {
        return Err(Error::Invalid(format!(
            "there is a database at {}; move it away before another one is restored in its place",
            place.display()
        )));
    }
    for leftover in [place.to_owned(), beside(place, "-wal"), beside(place, "-shm")] {
        if leftover.exists() {
            fs::remove_file(&leftover).map_err(failed("removing", &leftover))?;
        }
    }
    check_integrity(from)?;
    let part = beside(place, ".restoring");
    let _ = fs::remove_file(&part);
    copy(from, &part, told)?;
    Ok(part)
}

/// Marks the copy as restored before it gets its name: a database under its
/// name always has the right generation.
async fn begin_generation(file: &Path, from: &Path, settings: &Arc<Settings>) -> Result<()> {
    let mut tx = open_writer(file, settings)?;
    tx.batch("BEGIN IMMEDIATE").await?;
    let version = schema::version(&mut tx).await?;
    if !(1..=schema::CURRENT + 1).contains(&version) {
        let _ = fs::remove_file(file);
        return Err(Error::Schema(format!(
            "the backup has schema {version}, this version of Pinfold knows {}; run a version that made it",
            schema::CURRENT
        )));
    }
    schema::new_generation(&mut tx, &from.display().to_string()).await?;
    tx.batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE").await
}

fn is_empty(file: &Path) -> Result<bool> {
    Ok(fs::metadata(file).map_err(failed("reading", file))?.len() == 0)
}

fn read_only(file: &Path) -> Result<rusqlite::Connection> {
    if !file.exists() {
        return Err(Error::Invalid(format!("there is no file {}", file.display())));
    }
    Ok(rusqlite::Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

fn check_integrity(file: &Path) -> Result<()> {
    let found: String = read_only(file)?.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(Error::Invalid(format!("{} is damaged: {found}", file.display())))
    }
}

fn copy(from: &Path, to: &Path, told: Told<'_>) -> Result<()> {
    if to.exists() {
        return Err(Error::Invalid(format!("{} exists; name a file that does not", to.display())));
    }
    let part = beside(to, ".part");
    create_private(&part)?;
    copy_pages(from, &part, told).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })?;
    File::open(&part).and_then(|file| file.sync_all()).map_err(failed("writing", &part))?;
    fs::rename(&part, to).map_err(failed("renaming to", to))?;
    sync_directory(to)
}

/// Copies every page inside one read transaction: the snapshot is that of one
/// moment, and writers do not wait for it.
fn copy_pages(from: &Path, to: &Path, told: Told<'_>) -> Result<()> {
    let source = read_only(from)?;
    // A transaction sees nothing before its first read.
    source.execute_batch("BEGIN; SELECT COUNT(*) FROM sqlite_schema")?;
    let mut target = rusqlite::Connection::open(to)?;
    let copying = Backup::new(&source, &mut target)?;
    loop {
        let step = copying.step(STEP)?;
        let (pages, left) = (copying.progress().pagecount, copying.progress().remaining);
        told(u64::try_from(pages - left).unwrap_or(0), u64::try_from(pages).unwrap_or(0));
        if step == StepResult::Done {
            break;
        }
    }
    drop(copying);
    // One file, without a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error.into())
}

fn create_private(file: &Path) -> Result<()> {
    let _ = fs::remove_file(file);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop).map_err(failed("creating", file))
}

fn sync_directory(file: &Path) -> Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed("syncing", directory))
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
