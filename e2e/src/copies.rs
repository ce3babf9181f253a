//! A DAG byte for byte, as one Kubo has it: to be compared with what another
//! one was given of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use cid::Cid;

use crate::{
    data::same_folder,
    kubo::Kubo,
    place::{Place, text},
};

/// Codes of the codecs that `ipfs get` writes out as files.
const FILES: [u64; 2] = [0x55, 0x70];

/// What `refs`, `dag export` and `get` say of a DAG.
#[derive(Debug)]
pub struct Copy {
    whose: String,
    dag: Vec<String>,
    car: Vec<u8>,
    files: Option<PathBuf>,
}

impl Copy {
    /// Reads all of a DAG out of a Kubo.
    pub async fn of(place: &Place, kubo: &Kubo, root: &str) -> Result<Self> {
        let car = kubo.try_ipfs(&["dag", "export", "--progress=false", root]).await?;
        let car = car.success("ipfs dag export")?.stdout;
        let (dag, files) = (kubo.dag(root).await?, files(place, kubo, root).await?);
        Ok(Self { whose: format!("{root} in {}", kubo.name()), dag, car, files })
    }

    /// Every CID of the DAG.
    pub fn dag(&self) -> &[String] {
        &self.dag
    }

    /// Fails at the first difference.
    pub fn same_as(&self, other: &Self) -> Result<()> {
        let (left, right) = (&self.whose, &other.whose);
        ensure!(self.dag == other.dag, "{left} is another DAG than {right}");
        ensure!(self.car == other.car, "{left} is exported with other bytes than {right}");
        match (&self.files, &other.files) {
            (Some(files), Some(others)) => same_files(files, others),
            (None, None) => Ok(()),
            _ => anyhow::bail!("one of {left} and {right} has files"),
        }
    }
}

/// What `ipfs get` writes of a root that has files.
async fn files(place: &Place, kubo: &Kubo, root: &str) -> Result<Option<PathBuf>> {
    if !FILES.contains(&root.parse::<Cid>()?.codec()) {
        return Ok(None);
    }
    let path = place.path().join(format!("{}-{root}", kubo.name()));
    let text = text(&path)?;
    kubo.ipfs(&["get", "--progress=false", "-o", text, root]).await?;
    Ok(Some(path))
}

fn same_files(expected: &Path, found: &Path) -> Result<()> {
    if expected.is_dir() {
        return same_folder(expected, found);
    }
    let same = fs::read(expected)? == fs::read(found)?;
    ensure!(same, "{} differs from {}", found.display(), expected.display());
    Ok(())
}
