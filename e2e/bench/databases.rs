//! Rows of both databases beside each other.

use anyhow::Result;
use pinfold_e2e::{pinfold::Pinfold, place::Place, postgres::Postgres};

use crate::{
    load::Target,
    meter::{Meter, Reading},
    pins::{CONNECTIONS, POSTS, QUEUE, SIZES, pages, round},
    scale::Scale,
    table::{Side, Table},
};

/// Accounts of the row that has many.
const ACCOUNTS: usize = 16;

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
        work: &str,
        table: &mut Table,
    ) -> Result<()> {
        let (count, mut ours, mut theirs) = (scale.of(POSTS), Side::default(), Side::default());
        for _ in 0..scale.rounds {
            round(&targets[0], self.sqlite.parts[0].process(), count, connections, &mut ours).await?;
            let server = Meter::start(self.server.process())?;
            round(&targets[1], self.postgres.parts[0].process(), count, connections, &mut theirs).await?;
            let Reading { cpu, .. } = server.read()?;
            theirs.sender.push(cpu);
        }
        table.compare(work, "pins/s", &ours, PEER, &theirs);
        Ok(())
    }
}

/// `POST /pins` of one account, then short lists.
pub(crate) async fn one(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    let targets = [Target::of(&both.sqlite), Target::of(&both.postgres)];
    for connections in CONNECTIONS {
        let work = format!("`POST /pins`, {connections} connections, {} pins a round", scale.of(POSTS));
        both.post(&targets, connections, scale, &work, table).await?;
    }
    lists(&targets, &SIZES[..2], scale, table).await
}

/// The longest list; PostgreSQL takes minutes to be filled for it.
pub(crate) async fn long(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    lists(&[Target::of(&both.sqlite), Target::of(&both.postgres)], &SIZES[2..], scale, table).await
}

async fn lists(targets: &[Target; 2], sizes: &[u64], scale: &Scale, table: &mut Table) -> Result<()> {
    for size in sizes.iter().map(|size| scale.of(*size)) {
        let ours = pages(&targets[0], size).await?;
        let theirs = pages(&targets[1], size).await?;
        for (page, (ours, theirs)) in ["first page", "middle"].iter().zip(ours.iter().zip(&theirs)) {
            let made = targets[0].made();
            let work = format!("`GET /pins?limit=10` of {made} pins, {page}");
            let theirs_text = format!("{PEER}: {}", theirs.text());
            table.versus(&work, &ours.text(), &theirs_text, theirs.p50() / ours.p50());
        }
    }
    Ok(())
}

/// `POST /pins` over many accounts.
pub(crate) async fn accounts(place: &Place, scale: &Scale, table: &mut Table) -> Result<()> {
    let both = Both::start(place).await?;
    let targets = [many(&both.sqlite).await?, many(&both.postgres).await?];
    for connections in [ACCOUNTS, 2 * ACCOUNTS] {
        let work = format!("`POST /pins`, {connections} connections, {ACCOUNTS} accounts");
        both.post(&targets, connections, scale, &work, table).await?;
    }
    Ok(())
}

async fn many(pinfold: &Pinfold) -> Result<Target> {
    let mut tokens = Vec::with_capacity(ACCOUNTS);
    for number in 0..ACCOUNTS {
        let account = format!("account-{number}");
        pinfold.run(&["account", "create", &account]).await?.success("account create")?;
        let token = pinfold.run(&["token", "create", "--name", "bench", "--account", &account]).await?;
        tokens.push(token.success("token create")?.text()?);
    }
    Ok(Target::new(&pinfold.endpoint, tokens))
}
