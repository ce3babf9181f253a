//! Rows of both databases beside each other.

use anyhow::Result;
use pinfold_e2e::{pinfold::Pinfold, place::Place, postgres::Postgres};

use crate::{
    load::{Content, Target},
    meter::Meter,
    pins::{CONNECTIONS, LIST_GOAL, PAGES, QUEUE, SIZES, pages, round},
    scale::Scale,
    table::{Side, Table, Work},
};

/// Accounts of the rows that have many.
pub(crate) const ACCOUNTS: usize = 16;

/// Pins that a round makes on each database.
const PER_ROUND: u64 = 5_000;

/// What the second column shows.
const PEER: &str = "on PostgreSQL";

struct Both {
    sqlite: Pinfold,
    postgres: Pinfold,
    server: Postgres,
}

impl Both {
    async fn start(place: &Place) -> Result<Self> {
        let server = Postgres::start(place, "server").await?;
        let url = server.url();
        let further = [QUEUE, &["--database", &url]].concat();
        Ok(Self {
            sqlite: Pinfold::up(place, "sqlite", QUEUE).await?,
            postgres: Pinfold::up(place, "postgres", &further).await?,
            server,
        })
    }

    /// Alternating rounds of `POST /pins`; the server's CPU time is shown as
    /// the sender's.
    async fn post(
        &self,
        targets: &[Target; 2],
        connections: usize,
        scale: &Scale,
        name: &str,
        table: &mut Table,
    ) -> Result<()> {
        let (count, mut ours, mut theirs) = (scale.of(PER_ROUND), Side::default(), Side::default());
        for number in 0..scale.rounds {
            let first = number.is_multiple_of(2);
            for sqlite in [first, !first] {
                if sqlite {
                    let process = self.sqlite.parts[0].process();
                    round(&targets[0], process, count, connections, &mut ours).await?;
                } else {
                    let (process, server) =
                        (self.postgres.parts[0].process(), Meter::start(self.server.process())?);
                    round(&targets[1], process, count, connections, &mut theirs).await?;
                    theirs.sender.push(server.read()?.cpu);
                }
            }
        }
        let name = format!("{name}, {count} a round (the server's CPU time as the sender's)");
        let work = Work { name: &name, unit: "pins/s", peer: PEER, floor: "", goal: "" };
        table.compare(&work, &ours, &theirs);
        Ok(())
    }
}

/// `POST /pins` of one account, then short lists.
pub(crate) async fn one(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    let targets = [Target::of(&both.sqlite), Target::of(&both.postgres)];
    for connections in CONNECTIONS {
        let name = format!("`POST /pins`, {connections} connections, SQLite");
        both.post(&targets, connections, scale, &name, table).await?;
    }
    lists(&both, &SIZES[..2], scale, table).await
}

/// The longest list; PostgreSQL takes minutes to be filled for it.
pub(crate) async fn long(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    lists(&both, &SIZES[2..], scale, table).await
}

/// Lists of an account that has nothing else.
async fn lists(both: &Both, sizes: &[u64], scale: &Scale, table: &mut Table) -> Result<()> {
    let targets = [new_accounts(&both.sqlite, 1).await?, new_accounts(&both.postgres, 1).await?]
        .map(|target| target.with(Content::Mixed));
    for size in sizes.iter().map(|size| scale.of(*size)) {
        let ours = pages(&targets[0], size).await?;
        let theirs = pages(&targets[1], size).await?;
        for (page, (ours, theirs)) in PAGES.iter().zip(ours.iter().zip(&theirs)) {
            let name = format!("`GET /pins?limit=10` of {} pins, {page}, SQLite", targets[0].made());
            let their_text = format!("{PEER}: {}", theirs.text());
            table.versus(&name, &ours.text(), &their_text, theirs.p50() / ours.p50(), LIST_GOAL);
        }
    }
    Ok(())
}

/// `POST /pins` over many accounts.
pub(crate) async fn accounts(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    let targets =
        [new_accounts(&both.sqlite, ACCOUNTS).await?, new_accounts(&both.postgres, ACCOUNTS).await?];
    for connections in CONNECTIONS {
        let name = format!("`POST /pins`, {connections} connections, {ACCOUNTS} accounts, SQLite");
        both.post(&targets, connections, scale, &name, table).await?;
    }
    Ok(())
}

/// Makes accounts, and posts as each in turn.
pub(crate) async fn new_accounts(pinfold: &Pinfold, count: usize) -> Result<Target> {
    let mut tokens = Vec::with_capacity(count);
    for number in 0..count {
        let account = format!("account-{number}");
        pinfold.run(&["account", "create", &account]).await?.success("account create")?;
        let token = pinfold.run(&["token", "create", "--name", "bench", "--account", &account]).await?;
        tokens.push(token.success("token create")?.text()?);
    }
    Ok(Target::new(&pinfold.endpoint, tokens))
}
