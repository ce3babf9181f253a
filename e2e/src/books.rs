//! The service's books, for a recount: where they lie, copies of them, and the
//! proof that the recount notices what is wrong.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    pinfold::Pinfold,
    place::Place,
    postgres::Postgres,
    recount::{FILE, recount},
};

/// The folder of the books of a stopped product, as SQLite: its own, or a copy
/// of what its server holds.
pub async fn books(place: &Place, pinfold: &Pinfold, server: Option<&Postgres>) -> Result<PathBuf> {
    let Some(server) = server else { return Ok(pinfold.data().to_owned()) };
    let folder = place.folder("books")?;
    server.copy_out(&folder.join(FILE)).await?;
    Ok(folder)
}

/// Copies the files of an SQLite whose process is dead.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for name in [FILE.to_owned(), format!("{FILE}-wal")] {
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// Makes one mistake after another in a copy of the books: the recount has to
/// notice each, or its silence above says nothing.
pub fn notices(place: &Place, data: &Path, sizes: &BTreeMap<String, u64>) -> Result<()> {
    let mistakes = [
        "UPDATE tally SET pinned = pinned + 1 WHERE level = 1",
        "DELETE FROM pin WHERE requestid IN (SELECT requestid FROM pin WHERE status = 2 LIMIT 1)",
        "UPDATE account SET used = used + 1",
        "UPDATE account SET reserved = reserved + 1",
        "UPDATE content SET bytes = bytes + 1 WHERE state = 2",
        "UPDATE content SET state = 1 WHERE state = 2",
        "UPDATE holding SET pins = pins + 1",
    ];
    for (number, mistake) in mistakes.iter().enumerate() {
        let copy = place.folder(&format!("mistake-{number}"))?;
        std::fs::copy(data.join(FILE), copy.join(FILE))?;
        let books = rusqlite::Connection::open(copy.join(FILE))?;
        books.execute_batch("PRAGMA foreign_keys = OFF")?;
        ensure!(books.execute(mistake, [])? > 0, "`{mistake}` changed nothing");
        drop(books);
        ensure!(recount(&copy, sizes).is_err(), "the recount does not notice `{mistake}`");
    }
    Ok(())
}
