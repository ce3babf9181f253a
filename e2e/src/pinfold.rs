//! A Pinfold that a test starts, kills and starts again: `pinfold up`, or a
//! service and a node as processes of their own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    api::Api,
    clock::Clock,
    place::{Place, text},
    process::{Daemon, Finished, command, command_in, finish, free_port, peer},
    wait::eventually,
    witness::Witness,
};

/// The longest from the start to the ready line: two cores are shared with
/// other tests, and a start after a kill recovers first.
const READY: Duration = Duration::from_secs(30);

/// A clean stop's limit where the test is about something else.
const STOP: Duration = Duration::from_secs(30);

/// The account of a service that is not `up`.
const ACCOUNT: &str = "e2e";

/// One process of the product, and how to start it again.
#[derive(Debug)]
pub struct Part {
    name: String,
    namespace: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl Part {
    fn new(place: &Place, name: &str, arguments: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            namespace: None,
            arguments,
            environment: Vec::new(),
            log: place.log(name),
            daemon: None,
        }
    }

    /// Adds arguments for the next start.
    pub fn add_arguments(&mut self, further: &[&str]) {
        self.arguments.extend(words(further));
    }

    /// Its arguments; what is cut off is not given at the next start.
    pub fn arguments(&mut self) -> &mut Vec<String> {
        &mut self.arguments
    }

    /// Sets a variable of its environment for the next start.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, and does not wait until it is ready.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "{} runs already", self.name);
        let mut command = command_in(self.namespace.as_deref(), peer("PINFOLD_BIN")?);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.daemon = Some(Daemon::start(&self.name, &mut command, &self.log)?);
        Ok(())
    }

    /// Starts it, and returns what it printed up to the line that `last` starts.
    pub async fn start_until(&mut self, last: &str) -> Result<Vec<String>> {
        self.spawn()?;
        let daemon = self.daemon.as_mut().context("it does not run")?;
        let mut lines = daemon.read_until(READY, |line| line.contains(" is up.")).await?;
        lines.extend(daemon.read_until(READY, |line| line.trim_start().starts_with(last)).await?);
        Ok(lines)
    }

    /// Starts it again.
    pub async fn start(&mut self) -> Result<Vec<String>> {
        let last = if self.arguments[0] == "service" { "endpoint" } else { "swarm" };
        self.start_until(last).await
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("it does not run")?.kill().await
    }

    /// SIGTERM; it must end by itself, with status 0, in time.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_within(STOP).await
    }

    /// The same with another limit.
    pub async fn stop_within(&mut self, limit: Duration) -> Result<()> {
        let status = self.daemon.take().context("it does not run")?.terminate(limit).await?;
        ensure!(status.success(), "{} stopped with {status}", self.name);
        Ok(())
    }

    /// SIGTERM, and once it says that it stops another; returns how it ended.
    pub async fn stop_twice(&mut self) -> Result<std::process::ExitStatus> {
        let mut daemon = self.daemon.take().context("it does not run")?;
        daemon.signal().await?;
        eventually("the first signal to be heard", STOP, async || {
            Ok(std::fs::read_to_string(&self.log)?.contains("a second signal stops at once").then_some(()))
        })
        .await?;
        daemon.terminate(STOP).await
    }

    /// The process id, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Daemon::id)
    }
}

/// The IPFS network that a Pinfold is part of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network<'a> {
    /// The network namespace that it runs in; none is the machine's own.
    pub namespace: Option<&'a str>,
    /// What its peer listens on; none is a free port of loopback.
    pub swarm: Option<&'a str>,
    /// A peer to join Amino through; none keeps it away from any network.
    pub bootstrap: Option<&'a str>,
    /// The IP address that its API listens on; none is loopback.
    pub api: Option<&'a str>,
}

/// A Pinfold with a data folder and ports of its own.
#[derive(Debug)]
pub struct Pinfold {
    /// `up`; or the service, then the node.
    pub parts: Vec<Part>,
    /// Names the service's data for commands on it.
    location: Vec<String>,
    data: PathBuf,
    node_data: PathBuf,
    /// Base URL of the Pinning Service API.
    pub endpoint: String,
    /// Base URL of the gateway.
    pub gateway: String,
    /// The token that the first start printed.
    pub token: String,
}

impl Pinfold {
    /// Starts `pinfold up` with further arguments.
    pub async fn up(place: &Place, name: &str, further: &[&str]) -> Result<Self> {
        Self::up_in(place, name, Network::default(), further).await
    }

    /// The same in a network.
    pub async fn up_in(place: &Place, name: &str, network: Network<'_>, further: &[&str]) -> Result<Self> {
        let data = place.folder(name)?;
        Self::up_on(place, name, network, data, Vec::new(), further).await
    }

    /// `pinfold up` on a clock that the test sets.
    pub async fn up_by(place: &Place, name: &str, clock: &Clock, further: &[&str]) -> Result<Self> {
        let (data, environment) = (place.folder(name)?, clock.environment()?);
        Self::up_on(place, name, Network::default(), data, environment, further).await
    }

    /// `pinfold up` with a witness of what it does to its files.
    pub async fn up_before(place: &Place, name: &str, witness: &Witness, further: &[&str]) -> Result<Self> {
        let (data, environment) = (witness.folder().to_owned(), witness.environment()?);
        Self::up_on(place, name, Network::default(), data, environment, further).await
    }

    /// `pinfold up` with its data in a given folder.
    pub async fn up_at(place: &Place, name: &str, data: &Path, further: &[&str]) -> Result<Self> {
        Self::up_on(place, name, Network::default(), data.to_owned(), Vec::new(), further).await
    }

    async fn up_on(
        place: &Place,
        name: &str,
        network: Network<'_>,
        data: PathBuf,
        environment: Vec<(String, String)>,
        further: &[&str],
    ) -> Result<Self> {
        let gateway = free_port()?;
        let api = format!("{}:{}", network.api.unwrap_or("127.0.0.1"), free_port()?);
        let mut arguments = words(&["up", "--data", text(&data)?, "--api", &api]);
        arguments.extend(node_arguments(gateway, network)?);
        arguments.extend(words(further));
        let mut part = Part::new(place, name, arguments);
        part.namespace = network.namespace.map(str::to_owned);
        part.environment = environment;
        let lines = part.start_until("ipfs pin remote service add").await?;
        let endpoint = format!("http://{api}");
        let token = token(&lines, &endpoint)?;
        let location = location(&data, further)?;
        let node_data = data.clone();
        Ok(Self { parts: vec![part], location, data, node_data, endpoint, gateway: loopback(gateway), token })
    }

    /// Starts a service and a node of its operator as two processes, with
    /// further arguments for the service.
    pub async fn split(place: &Place, name: &str, further: &[&str]) -> Result<Self> {
        Self::split_with(place, name, further, &[]).await
    }

    /// The same, with further arguments for the node too.
    pub async fn split_with(place: &Place, name: &str, further: &[&str], of_node: &[&str]) -> Result<Self> {
        let data = place.folder(name)?;
        let (api, gateway) = (free_port()?, free_port()?);
        let node_data = place.folder(&format!("{name}-node"))?;
        let node_id = run(&["node", "id", "--data", text(&node_data)?]).await?.success("node id")?.text()?;
        let location = location(&data, further)?;
        let mut parts = vec![
            service(place, name, api, &node_id, &[text(&data)?], further)?,
            node(place, &format!("{name}-node"), text(&node_data)?, &loopback(api), gateway)?,
        ];
        parts[1].arguments.extend(words(of_node));
        for part in &mut parts {
            part.start().await?;
        }
        let mut split = Self {
            parts,
            location,
            data,
            node_data,
            endpoint: loopback(api),
            gateway: loopback(gateway),
            token: String::new(),
        };
        split.make_token().await?;
        split.meet().await?;
        Ok(split)
    }

    /// Another service process on the same data; PostgreSQL alone allows it.
    pub async fn second_service(&self, place: &Place, name: &str) -> Result<(Part, Api)> {
        let api = free_port()?;
        let mut arguments = self.parts[0].arguments.clone();
        let at =
            arguments.iter().position(|argument| argument == "--api").context("a service has an address")?;
        arguments[at + 1] = format!("127.0.0.1:{api}");
        let mut part = Part::new(place, name, arguments);
        part.start().await?;
        Ok((part, Api::new(&loopback(api), &self.token)?))
    }

    async fn make_token(&mut self) -> Result<()> {
        self.run(&["account", "create", ACCOUNT]).await?.success("account create")?;
        let token = self.run(&["token", "create", "--name", "e2e", "--account", ACCOUNT]).await?;
        self.token = token.success("token create")?.text()?;
        Ok(())
    }

    /// Waits until the service knows its node: a pin is accepted then.
    async fn meet(&self) -> Result<()> {
        let api = self.api()?;
        // An identity CID, which holds its own data.
        let pin = eventually("the node to reach its service", READY, async || {
            Ok(Some(api.add_cid("bafkqaaa").await?))
        });
        api.delete(&pin.await?.requestid).await
    }

    /// Starts all parts again, and returns what they printed.
    pub async fn start(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for part in &mut self.parts {
            lines.extend(part.start().await?);
        }
        Ok(lines)
    }

    /// Starts the parts that do not run.
    pub async fn start_missing(&mut self) -> Result<()> {
        for part in self.parts.iter_mut().filter(|part| part.process().is_none()) {
            part.start().await?;
        }
        Ok(())
    }

    /// Asks all parts to stop, and does not wait for it.
    pub async fn ask_to_stop(&self) -> Result<()> {
        for daemon in self.parts.iter().filter_map(|part| part.daemon.as_ref()) {
            daemon.signal().await?;
        }
        Ok(())
    }

    /// `kill -9` for all parts.
    pub async fn kill(&mut self) -> Result<()> {
        for part in &mut self.parts {
            part.kill().await?;
        }
        Ok(())
    }

    /// A clean stop of all parts, the node first.
    pub async fn stop(&mut self) -> Result<()> {
        for part in self.parts.iter_mut().rev() {
            part.stop().await?;
        }
        Ok(())
    }

    /// From now on its data are in this folder.
    pub fn move_to(&mut self, data: &Path) -> Result<()> {
        let old = text(&self.data)?.to_owned();
        let new = text(data)?.to_owned();
        let parts = self.parts.iter_mut().flat_map(|part| part.arguments.iter_mut());
        for argument in parts.chain(&mut self.location).filter(|argument| **argument == old) {
            argument.clone_from(&new);
        }
        self.data = data.to_owned();
        Ok(())
    }

    /// A client with the first token.
    pub fn api(&self) -> Result<Api> {
        Api::new(&self.endpoint, &self.token)
    }

    /// Makes another account, and answers a client of it.
    pub async fn account(&self, name: &str, quota: &str) -> Result<Api> {
        self.run(&["account", "create", name, "--quota", quota]).await?.success("account create")?;
        let token = self.run(&["token", "create", "--name", name, "--account", name]).await?;
        Api::new(&self.endpoint, &token.success("token create")?.text()?)
    }

    /// The service's data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder with the node's data, which `up` has in the same.
    pub fn node_data(&self) -> &Path {
        &self.node_data
    }

    /// Runs a command of the product, such as `token create`, on its data.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let mut all = arguments.to_vec();
        all.extend(self.location.iter().map(String::as_str));
        let (api, gateway) = (address(&self.endpoint), address(&self.gateway));
        if arguments.first() == Some(&"check") {
            // Else it would look for whatever has the usual ports of this machine.
            all.extend(["--api", api, "--gateway", gateway, "--swarm", "/ip4/127.0.0.1/tcp/0"]);
        }
        run(&all).await
    }

    /// Runs `pinfold pin …` as a client with the first token.
    pub async fn pin(&self, place: &Place, arguments: &[&str]) -> Result<Finished> {
        pin(place, &self.endpoint, &self.token, arguments).await
    }
}

/// Runs `pinfold pin …` as a client of any endpoint.
pub async fn pin(place: &Place, endpoint: &str, token: &str, arguments: &[&str]) -> Result<Finished> {
    let file = place.path().join("token");
    std::fs::write(&file, token)?;
    run(&[&["pin"], arguments, &["--endpoint", endpoint, "--token-file", text(&file)?]].concat()).await
}

/// Where a base URL's listener is.
fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

/// What names a service's data to commands: its folder, and its database
/// where `further` has one.
fn location(data: &Path, further: &[&str]) -> Result<Vec<String>> {
    let mut location = words(&["--data", text(data)?]);
    if let Some(at) = further.iter().position(|argument| *argument == "--database") {
        location.extend(words(&further[at..at + 2]));
    }
    Ok(location)
}

async fn run(arguments: &[&str]) -> Result<Finished> {
    let mut command = command(peer("PINFOLD_BIN")?);
    command.args(arguments).env("PINFOLD_LOG_LEVEL", "warn");
    finish(&mut command, &format!("pinfold {}", arguments.join(" "))).await
}

fn service(place: &Place, name: &str, api: u16, node: &str, data: &[&str], further: &[&str]) -> Result<Part> {
    let mut arguments = words(&["service", "--data"]);
    arguments.extend(words(data));
    arguments.extend(words(&["--api", &format!("127.0.0.1:{api}"), "--operator-node", node, "--migrate"]));
    arguments.extend(words(&[
        "--replicas",
        "1/1",
        "--rate-limits",
        "off",
        "--allow-private-addresses",
        "on",
    ]));
    arguments.extend(words(further));
    Ok(Part::new(place, name, arguments))
}

fn node(place: &Place, name: &str, data: &str, service: &str, gateway: u16) -> Result<Part> {
    let mut arguments = words(&["node", "run", "--data", data, "--service", service]);
    // Origins are on this machine. A node allows that itself: its service
    // must not be able to make it dial its owner's network.
    arguments.extend(words(&["--allow-private-addresses", "on"]));
    arguments.extend(node_arguments(gateway, Network::default())?);
    Ok(Part::new(place, name, arguments))
}

/// What a node listens on, and which network it looks for.
fn node_arguments(gateway: u16, network: Network<'_>) -> Result<Vec<String>> {
    let free = format!("/ip4/127.0.0.1/tcp/{}", free_port()?);
    let swarm = network.swarm.unwrap_or(&free);
    let mut arguments = words(&["--gateway", &format!("127.0.0.1:{gateway}"), "--swarm", swarm]);
    match network.bootstrap {
        Some(bootstrap) => arguments.extend(words(&["--network", "amino", "--bootstrap", bootstrap])),
        None => arguments.extend(words(&["--network", "none"])),
    }
    Ok(arguments)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn loopback(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The token in the line that a newcomer pastes.
fn token(lines: &[String], endpoint: &str) -> Result<String> {
    let start = format!("ipfs pin remote service add pinfold {endpoint} ");
    let found = lines.iter().find_map(|line| line.trim().strip_prefix(&start));
    let token = found.with_context(|| format!("no line says `{start}TOKEN`: {lines:?}"))?;
    Ok(token.to_owned())
}
