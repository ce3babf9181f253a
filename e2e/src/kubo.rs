//! An unmodified Kubo that a test starts: on loopback, with no routing, no
//! bootstrap peer, no discovery and no telemetry, unless the test asks for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    pinfold::Pinfold,
    place::{Place, text},
    process::{Daemon, Finished, command_in, finish, finish_within, peer},
};

/// The longest until a daemon is ready.
const READY: Duration = Duration::from_secs(60);

/// The longest until a daemon has stopped.
const STOP: Duration = Duration::from_secs(30);

/// Profiles of a repository that keeps its blocks in one database, not each in
/// a file.
const MANY_BLOCKS: &str = "test,pebbleds";

/// A Kubo daemon and its repository.
#[derive(Debug)]
pub struct Kubo {
    name: String,
    namespace: Option<String>,
    repository: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// Base URL of its gateway.
    pub gateway: String,
    /// Its peer id.
    pub id: String,
    daemon: Option<Daemon>,
}

impl Kubo {
    /// Makes a repository and starts a daemon on it.
    pub async fn start(place: &Place, name: &str) -> Result<Self> {
        Self::start_with(place, name, &[], |_| {}).await
    }

    /// The same with more in the daemon's environment and another configuration.
    pub async fn start_with(
        place: &Place,
        name: &str,
        environment: &[(&str, &str)],
        configure: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        Self::start_in(place, name, None, environment, configure).await
    }

    /// The same in a network namespace.
    pub async fn start_in(
        place: &Place,
        name: &str,
        namespace: Option<&str>,
        environment: &[(&str, &str)],
        configure: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let mut kubo = Self::new(place, name, namespace, environment)?;
        kubo.initialise("test", configure).await?;
        kubo.resume().await?;
        Ok(kubo)
    }

    /// Makes a repository without a daemon: its commands reach no peer.
    pub async fn offline(place: &Place, name: &str) -> Result<Self> {
        let mut kubo = Self::new(place, name, None, &[])?;
        kubo.initialise(MANY_BLOCKS, |_| {}).await?;
        Ok(kubo)
    }

    /// A daemon whose repository is made for very many small blocks.
    pub async fn start_for_many_blocks(place: &Place, name: &str) -> Result<Self> {
        let mut kubo = Self::new(place, name, None, &[])?;
        kubo.initialise(MANY_BLOCKS, |_| {}).await?;
        kubo.resume().await?;
        Ok(kubo)
    }

    fn new(place: &Place, name: &str, namespace: Option<&str>, environment: &[(&str, &str)]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            repository: place.folder(name)?,
            log: place.log(name),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            gateway: String::new(),
            id: String::new(),
            daemon: None,
        })
    }

    async fn initialise(&mut self, profile: &str, configure: impl FnOnce(&mut Value)) -> Result<()> {
        self.ipfs(&["init", &format!("--profile={profile}"), "--empty-repo"]).await?;
        self.configure(configure)
    }

    fn configure(&mut self, configure: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.repository.join("config");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["Routing"]["Type"] = json!("none");
        config["Plugins"]["Plugins"] = json!({ "telemetry": { "Config": { "Mode": "off" } } });
        config["Version"]["SwarmCheckEnabled"] = json!(false);
        config["Swarm"]["RelayClient"]["Enabled"] = json!(false);
        config["Swarm"]["Transports"]["Network"]["Relay"] = json!(false);
        configure(&mut config);
        self.id = config["Identity"]["PeerID"].as_str().context("a configuration has a peer id")?.to_owned();
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(())
    }

    /// Starts the daemon (again).
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "{} runs already", self.name);
        let mut command = self.command(&["daemon", "--migrate=false"])?;
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut daemon = Daemon::start(&self.name, &mut command, &self.log)?;
        let lines = daemon.read_until(READY, |line| line.contains("Daemon is ready")).await?;
        self.gateway = lines.iter().find_map(|line| gateway(line)).context("no line names the gateway")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops the daemon and waits until it is gone.
    pub async fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("it does not run")?.terminate(STOP).await?;
        Ok(())
    }

    /// Multiaddr of its RPC API, which on loopback is its owner's.
    pub fn rpc(&self) -> Result<String> {
        let path = self.repository.join("api");
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .trim()
            .to_owned())
    }

    /// What the test calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the daemon.
    pub fn process(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Daemon::id)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command_in(self.namespace.as_deref(), peer("PINFOLD_E2E_KUBO")?);
        command.args(arguments).env("IPFS_PATH", &self.repository).env("IPFS_TELEMETRY", "off");
        Ok(command)
    }

    /// Runs `ipfs …` and returns what it printed.
    pub async fn ipfs(&self, arguments: &[&str]) -> Result<String> {
        self.try_ipfs(arguments).await?.success(&describe(arguments))?.text()
    }

    /// As [`Kubo::ipfs`], for what takes long.
    pub async fn ipfs_within(&self, arguments: &[&str], limit: Duration) -> Result<String> {
        let (mut command, what) = (self.command(arguments)?, describe(arguments));
        finish_within(&mut command, &what, limit).await?.success(&what)?.text()
    }

    /// Runs `ipfs …` and returns how it ended, whatever that is.
    pub async fn try_ipfs(&self, arguments: &[&str]) -> Result<Finished> {
        finish(&mut self.command(arguments)?, &describe(arguments)).await
    }

    /// Runs `ipfs …` with bytes on its standard input.
    pub async fn ipfs_with(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        let (written, output) = tokio::join!(
            async move {
                stdin.write_all(input).await?;
                stdin.shutdown().await
            },
            child.wait_with_output()
        );
        let output = output?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let finished = Finished { status: output.status, stdout: output.stdout, stderr };
        let text = finished.success(&describe(arguments))?.text()?;
        written?;
        Ok(text)
    }

    /// Adds bytes as a file, with further flags of `ipfs add`.
    pub async fn add(&self, bytes: &[u8], flags: &[&str]) -> Result<String> {
        self.ipfs_with(&[&["add", "-Q", "--cid-version=1"], flags].concat(), bytes).await
    }

    /// Adds a folder.
    pub async fn add_folder(&self, folder: &Path, flags: &[&str]) -> Result<String> {
        let folder = text(folder)?;
        self.ipfs(&[&["add", "-Q", "-r", "--cid-version=1"], flags, &[folder]].concat()).await
    }

    /// Every CID of a DAG, the root included, each once.
    pub async fn dag(&self, root: &str) -> Result<Vec<String>> {
        let mut cids: Vec<_> =
            self.ipfs(&["refs", "-r", "-u", root]).await?.lines().map(str::to_owned).collect();
        cids.push(root.to_owned());
        cids.sort();
        cids.dedup();
        Ok(cids)
    }

    /// Adds a Pinfold as the remote service `pinfold`.
    pub async fn use_service(&self, pinfold: &Pinfold) -> Result<()> {
        self.ipfs(&["pin", "remote", "service", "add", "pinfold", &pinfold.endpoint, &pinfold.token]).await?;
        Ok(())
    }

    /// Bytes of blocks that it has sent to peers since its daemon's start.
    pub async fn sent(&self) -> Result<u64> {
        let stat: Value = serde_json::from_str(&self.ipfs(&["bitswap", "stat", "--enc=json"]).await?)?;
        stat["DataSent"].as_u64().context("what was sent is counted")
    }

    /// Multiaddrs that it can be dialled at, each with its peer id.
    pub async fn addresses(&self) -> Result<Vec<String>> {
        let identity: Value = serde_json::from_str(&self.ipfs(&["id"]).await?)?;
        let addresses = identity["Addresses"].as_array().context("an identity has addresses")?;
        Ok(addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Dials a peer.
    pub async fn connect(&self, address: &str) -> Result<()> {
        self.ipfs(&["swarm", "connect", address]).await?;
        Ok(())
    }
}

fn gateway(line: &str) -> Option<String> {
    let port = line.strip_prefix("Gateway server listening on /ip4/127.0.0.1/tcp/")?;
    Some(format!("http://127.0.0.1:{port}"))
}

fn describe(arguments: &[&str]) -> String {
    format!("ipfs {}", arguments.join(" "))
}
