//! Rows beside ipfs-cluster: pins of content that nobody has, accepted and
//! listed.
//!
//! It runs as it comes, and answers a `POST` before what it wrote is synced;
//! ours answers after.

use anyhow::Result;
use pinfold_e2e::{cluster::Cluster, pinfold::Pinfold, place::Place};

use crate::{
    load::Target,
    pins::{CONNECTIONS, FILLERS, PAGE, PAGES, PAGES_LIMIT, POSTS, QUEUE, round},
    scale::Scale,
    table::{Side, Table},
};

/// Pins that a round makes at the peer: as many as ours would take minutes.
const PEER_POSTS: u64 = 2_000;

/// What the peer is called in the table.
const PEER: &str = "ipfs-cluster";

/// `POST /pins` in alternating rounds.
pub(crate) async fn post(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let cluster = Cluster::start(place, "cluster").await?;
    let (ours, theirs) = (Target::of(&pinfold), Target::cluster(&cluster));
    let (count, peer_count) = (scale.of(POSTS), scale.of(PEER_POSTS));
    for connections in CONNECTIONS {
        let (mut our_side, mut their_side) = (Side::default(), Side::default());
        for _ in 0..scale.rounds {
            round(&ours, pinfold.parts[0].process(), count, connections, &mut our_side).await?;
            round(&theirs, cluster.processes().0, peer_count, connections, &mut their_side).await?;
        }
        per_ten_thousand(&mut our_side, count);
        per_ten_thousand(&mut their_side, peer_count);
        let work = format!("`POST /pins`, {connections} connections (CPU s per 10,000)");
        table.compare(&work, "pins/s", &our_side, PEER, &their_side);
    }
    Ok(())
}

/// Rounds of both sides differ in size: their CPU time is compared by work.
fn per_ten_thousand(side: &mut Side, count: u64) {
    for cpu in &mut side.cpu {
        *cpu *= 10_000.0 / count as f64;
    }
}

/// The first page of a list of `size` pins.
pub(crate) async fn list(place: &Place, size: u64, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let cluster = Cluster::start(place, "cluster").await?;
    let (ours, theirs) = (Target::of(&pinfold), Target::cluster(&cluster));
    ours.post(size, FILLERS).await?;
    theirs.post(size, FILLERS).await?;
    let our_times = ours.list(PAGE, PAGES, PAGES_LIMIT).await?;
    let their_times = theirs.list(PAGE, PAGES, PAGES_LIMIT).await?;
    table.versus(
        &format!("`GET /pins?limit=10` of {size} pins, first page"),
        &our_times.text(),
        &format!("{PEER}: {}", their_times.text()),
        their_times.p50() / our_times.p50(),
    );
    Ok(())
}
