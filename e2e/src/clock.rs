//! A clock that a test sets, for one process: libfaketime, loaded before it.
//! The monotonic clock, which timers follow, goes on as it is.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{
    place::{Place, text},
    process::peer,
};

/// How far a process's clock is ahead of the machine's.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    ///
    /// # Errors
    /// When `cargo xtask` named no libfaketime.
    pub fn new(place: &Place) -> Result<Self> {
        let clock = Self { library: peer("PINFOLD_E2E_FAKETIME")?, file: place.path().join("clock") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds before or after the machine's; it is right for
    /// every later look of the process at its clock.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // Renamed into place: the process reads it at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, &self.file)?)
    }

    /// What a process has to find in its environment.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let pairs = [
            ("LD_PRELOAD", text(&self.library)?),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)?),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }
}
