//! Rows beside ipfs-cluster: pins of content that nobody has, accepted and
//! listed.
//!
//! It runs as it comes, and answers a `POST` before what it wrote is synced;
//! ours answers after.

use anyhow::Result;
use pinfold_e2e::{cluster::Cluster, pinfold::Pinfold, place::Place};

use crate::{
    databases::{ACCOUNTS, new_accounts},
    load::Target,
    pins::{CONNECTIONS, FILLERS, LIST_GOAL, PAGE, POSTS, QUEUE, TIMES, TIMES_LIMIT, round},
    scale::Scale,
    table::{Side, Table, Work},
};

/// What each number of connections is to reach.
const GOALS: [&str; 2] = ["3x", "5x"];

/// What the peer is called in the table.
const PEER: &str = "ipfs-cluster";

/// `POST /pins` in alternating rounds, in one account and over many.
pub(crate) async fn post(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let cluster = Cluster::start(place, "cluster").await?;
    let (one, all, theirs) =
        (Target::of(&pinfold), new_accounts(&pinfold, ACCOUNTS).await?, Target::cluster(&cluster));
    let count = scale.of(POSTS);
    for (ours, accounts) in [(&one, "one account".to_owned()), (&all, format!("{ACCOUNTS} accounts"))] {
        for (connections, goal) in CONNECTIONS.into_iter().zip(GOALS) {
            let (mut our_side, mut their_side) = (Side::default(), Side::default());
            for number in 0..scale.rounds {
                let first = number.is_multiple_of(2);
                for pinfolds in [first, !first] {
                    if pinfolds {
                        round(ours, pinfold.parts[0].process(), count, connections, &mut our_side).await?;
                    } else {
                        let process = cluster.processes().0;
                        round(&theirs, process, count, connections, &mut their_side).await?;
                    }
                }
            }
            let name = format!("`POST /pins`, {connections} connections, {accounts}, {count} a round");
            let work = Work { name: &name, unit: "pins/s", peer: PEER, floor: "", goal };
            table.compare(&work, &our_side, &their_side);
        }
    }
    Ok(())
}

/// The first page of a list of `size` pins.
pub(crate) async fn list(place: &Place, size: u64, table: &mut Table) -> Result<()> {
    let pinfold = Pinfold::up(place, "pinfold", QUEUE).await?;
    let cluster = Cluster::start(place, "cluster").await?;
    let (ours, theirs) = (Target::of(&pinfold), Target::cluster(&cluster));
    ours.post(size, FILLERS).await?;
    theirs.post(size, FILLERS).await?;
    let our_times = ours.list(PAGE, TIMES, TIMES_LIMIT).await?;
    let their_times = theirs.list(PAGE, TIMES, TIMES_LIMIT).await?;
    table.versus(
        &format!("`GET /pins?limit=10` of {size} pins, first page"),
        &our_times.text(),
        &format!("{PEER}: {}", their_times.text()),
        their_times.p50() / our_times.p50(),
        LIST_GOAL,
    );
    Ok(())
}
