//! A Pinfold that a test starts, kills and starts again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    api::Api,
    place::Place,
    process::{Daemon, Finished, command, finish, free_port, peer},
};

/// The longest from the start to the ready line: two cores are shared with
/// other tests, and a start after a kill recovers first.
const READY: Duration = Duration::from_secs(30);

/// A clean stop's limit, as the product promises it.
const STOP: Duration = Duration::from_secs(10);

/// `pinfold up` with a data folder and ports of its own.
#[derive(Debug)]
pub struct Pinfold {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    data: PathBuf,
    /// Base URL of the Pinning Service API.
    pub endpoint: String,
    /// Base URL of the gateway.
    pub gateway: String,
    /// The token that the first start printed.
    pub token: String,
    daemon: Option<Daemon>,
}

impl Pinfold {
    /// Starts one with the given further arguments.
    pub async fn up(place: &Place, name: &str, further: &[&str]) -> Result<Self> {
        let data = place.folder(name)?;
        let (api, gateway, swarm) = (free_port()?, free_port()?, free_port()?);
        let mut arguments: Vec<String> = vec!["up".into(), "--data".into(), path(&data)?];
        for (flag, value) in [
            ("--api", format!("127.0.0.1:{api}")),
            ("--gateway", format!("127.0.0.1:{gateway}")),
            ("--swarm", format!("/ip4/127.0.0.1/tcp/{swarm}")),
            ("--network", "none".to_owned()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        let mut pinfold = Self {
            name: name.to_owned(),
            arguments,
            log: place.log(name),
            data,
            endpoint: format!("http://127.0.0.1:{api}"),
            gateway: format!("http://127.0.0.1:{gateway}"),
            token: String::new(),
            daemon: None,
        };
        let lines = pinfold.start().await?;
        pinfold.token = token(&lines, &pinfold.endpoint)?;
        Ok(pinfold)
    }

    /// Starts it again, and returns what it printed until it was ready.
    pub async fn start(&mut self) -> Result<Vec<String>> {
        ensure!(self.daemon.is_none(), "{} runs already", self.name);
        let mut command = command(peer("PINFOLD_BIN")?);
        command.args(&self.arguments).env("PINFOLD_LOG_LEVEL", "info");
        let mut daemon = Daemon::start(&self.name, &mut command, &self.log)?;
        let mut lines = daemon.read_until(READY, |line| line.contains(" is up.")).await?;
        // The addresses, and the token on a first start, follow at once.
        lines.extend(
            daemon
                .read_until(READY, |line| line.trim().is_empty() || line.contains("service add"))
                .await
                .unwrap_or_default(),
        );
        self.daemon = Some(daemon);
        Ok(lines)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("it does not run")?.kill().await
    }

    /// SIGTERM; it must end by itself, with status 0, in time.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.daemon.take().context("it does not run")?.terminate(STOP).await?;
        ensure!(status.success(), "{} stopped with {status}", self.name);
        Ok(())
    }

    /// A client with the first token.
    pub fn api(&self) -> Result<Api> {
        Api::new(&self.endpoint, &self.token)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Runs a command of the product, such as `token create`, on its data.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = command(peer("PINFOLD_BIN")?);
        command.args(arguments).arg("--data").arg(&self.data).env("PINFOLD_LOG_LEVEL", "warn");
        finish(&mut command, &format!("pinfold {}", arguments.join(" "))).await
    }
}

/// The token in the line that a newcomer pastes.
fn token(lines: &[String], endpoint: &str) -> Result<String> {
    let start = format!("ipfs pin remote service add pinfold {endpoint} ");
    let found = lines.iter().find_map(|line| line.trim().strip_prefix(&start));
    let token = found.with_context(|| format!("no line says `{start}TOKEN`: {lines:?}"))?;
    Ok(token.to_owned())
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a temporary path is UTF-8")?.to_owned())
}
