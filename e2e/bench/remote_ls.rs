//! The row of a long list as a real Kubo reads it: page after page of ten.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pinfold_e2e::{kubo::Kubo, pinfold::Pinfold, place::Place, wait::eventually};

use crate::{
    load::{Content, Target},
    meter::Meter,
    pins::{FILLERS, QUEUE},
    scale::Scale,
    table::Table,
};

/// Pins that are listed.
const PINS: u64 = 100_000;

/// How long all of them may take to be pinned, and Kubo to list them.
const LIMIT: Duration = Duration::from_secs(1_200);

/// `ipfs pin remote ls` of an account of [`PINS`].
pub(crate) async fn row(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let kubo = Kubo::start(place, "kubo").await?;
    kubo.use_service(&pinfold).await?;
    let count = scale.of(PINS);
    Target::of(&pinfold).with(Content::Inline).post(count, FILLERS).await?;
    let api = pinfold.api()?;
    eventually("every pin to be pinned", LIMIT, async || {
        let pinned = api.list("status=pinned&limit=1").await?.count;
        ensure!(pinned == count, "{pinned} of {count} are");
        Ok(Some(()))
    })
    .await?;
    let meter = Meter::start(pinfold.parts[0].process())?;
    let begun = Instant::now();
    let listed = kubo.ipfs_within(&["pin", "remote", "ls", "--service=pinfold"], LIMIT).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let lines = listed.lines().count() as u64;
    ensure!(lines == count, "Kubo lists {lines} pins of {count}");
    let result = format!("{seconds:.1} s, {:.1} CPU s of the service", meter.read()?.cpu);
    table.alone(&format!("`ipfs pin remote ls` of {count} pins by Kubo"), &result, "30 s");
    Ok(())
}
