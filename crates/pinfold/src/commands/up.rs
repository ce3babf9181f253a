//! `pinfold up`, `pinfold service` and `pinfold node`.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};
use pinfold_node::{Node, identity::Identity};
use pinfold_service::Monitor;
use serde_json::json;
use url::Url;

use super::serve::{self, Mode};
use crate::{
    cli::{NetworkName, NodeArgs, NodeCommand, NodeRunArgs, ServiceCommand, UpArgs},
    output::{print, print_json},
    progress::Meter,
    usage::wrong_usage,
};

/// The node's folder in the data folder of `up`.
const NODE_DIR: &str = "node";
/// Remembers the service that a node works for.
const SERVICE_FILE: &str = "service";
/// How long `up` waits for its two halves to meet before it says that it is
/// ready all the same.
const MEETING: Duration = Duration::from_secs(10);

/// Runs a service and one node, which speak the node API over loopback.
pub(crate) async fn up(args: UpArgs) -> Result<()> {
    serve::make_private_dir(&args.data.data)?;
    let node_dir = args.data.data.join(NODE_DIR);
    serve::make_private_dir(&node_dir)?;
    let identity = Identity::load_or_create(&node_dir)?;
    let public = args.service.public_url();
    let private = public.is_none();
    let mode = Mode {
        replicas: args.replicas,
        migrate: true,
        make_secret: true,
        private,
        own_nodes: vec![identity.signing.verifying_key().to_bytes()],
    };
    let running = serve::start(&args.data, &args.service, mode).await?;
    let api = running.service.api_address();
    let own = serve::local(running.service.node_api_address());
    let service: Url = format!("http://{own}").parse().context("the API's own address")?;
    let provide = !private || !args.node.announce.is_empty();
    let mut settings = node_settings(&args.node, &node_dir, service, provide);
    settings.network.allow_private_addresses = serve::allow_private(&args.service, private);
    let node = Node::start(settings).await?;
    if tokio::time::timeout(MEETING, node.introduced()).await.is_err() {
        tracing::warn!("the node has not reached the service yet; pins wait for it");
    }
    let endpoint = public.unwrap_or_else(|| args.service.endpoint(serve::local(api)));
    let mut lines = vec!["Pinfold is up.".to_owned(), format!("  endpoint  {endpoint}")];
    lines.extend(node_lines(&node));
    lines.extend(metrics_line(running.service.metrics_address()));
    if let Some(token) = running.first_token().await? {
        lines.push(format!("  token     {token}"));
        lines.push("\nThe token is shown this once. Add the service to IPFS with:\n".into());
        lines.push(format!("ipfs pin remote service add pinfold {endpoint} {token}"));
    } else if running.has_unused_tokens_alone().await? {
        // The first start may have been killed before its token was read.
        lines.push("  token     none was used yet; `pinfold token create --name NAME` makes another".into());
    }
    serve::until_stopped(&lines).await?;
    serve::stop(async {
        tokio::join!(node.shutdown(), running.stop());
    })
    .await;
    Ok(())
}

/// Runs a service alone.
pub(crate) async fn service(args: ServiceCommand) -> Result<()> {
    serve::make_private_dir(&args.data.data)?;
    let mode = Mode {
        replicas: args.replicas,
        migrate: args.service.migrate,
        make_secret: args.data.secret_file.is_none(),
        private: false,
        own_nodes: Vec::new(),
    };
    let running = serve::start(&args.data, &args.service, mode).await?;
    let api = running.service.api_address();
    let mut lines =
        vec!["Pinfold's service is up.".to_owned(), format!("  endpoint  {}", args.service.endpoint(api))];
    lines.extend(metrics_line(running.service.metrics_address()));
    serve::until_stopped(&lines).await?;
    serve::stop(running.stop()).await;
    Ok(())
}

/// `pinfold node …`.
pub(crate) async fn node(command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Run(args) => run(*args).await,
        NodeCommand::Id { data, json } => {
            serve::make_private_dir(&data)?;
            let peer = Identity::load_or_create(&data)?.keypair.public().to_peer_id().to_string();
            if json { print_json(&json!({ "peer_id": peer })) } else { print(&peer) }
        }
    }
}

async fn run(args: NodeRunArgs) -> Result<()> {
    serve::make_private_dir(&args.data)?;
    let service = remembered_service(&args.data, args.service.as_deref())?;
    let mut settings = node_settings(&args.node, &args.data, service, true);
    settings.network.allow_private_addresses = args.allow_private_addresses.is_on();
    // Before the node, whose counters are those of the recorder that is there.
    let monitor = match args.metrics {
        Some(address) => Some(Monitor::start(address).await?),
        None => None,
    };
    let node = Node::start(settings).await?;
    let mut lines = vec!["Pinfold's node is up.".to_owned(), format!("  node      {}", node.peer_id())];
    lines.extend(node_lines(&node));
    lines.extend(metrics_line(monitor.as_ref().map(Monitor::address)));
    serve::until_stopped(&lines).await?;
    serve::stop(async {
        node.shutdown().await;
        if let Some(monitor) = monitor {
            monitor.stop().await;
        }
    })
    .await;
    Ok(())
}

/// The service named now, or the one named before.
fn remembered_service(data: &Path, named: Option<&str>) -> Result<Url> {
    let file = data.join(SERVICE_FILE);
    let text = match named {
        Some(named) => named.to_owned(),
        None => match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => wrong_usage!("no service is named: give its endpoint with --service URL"),
        },
    };
    let url: Url = text.parse().with_context(|| format!("--service {text:?} is not a URL"))?;
    std::fs::write(&file, format!("{url}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(url)
}

/// Between two looks for blocks to remove, however soon they are due: a look
/// reads what is idle.
const LEAST_RECLAIM_PAUSE: Duration = Duration::from_secs(1);

fn node_settings(args: &NodeArgs, data: &Path, service: Url, provide: bool) -> pinfold_node::Settings {
    let mut settings = pinfold_node::Settings::new(data.to_owned(), service);
    settings.capacity_bytes = args.capacity.as_u64();
    settings.reclaim_delay = args.reclaim_after;
    // Looked for no more rarely than they come due.
    settings.reclaim_every = settings.reclaim_every.min(args.reclaim_after).max(LEAST_RECLAIM_PAUSE);
    settings.gateway = Some(args.gateway);
    settings.gateway_domain.clone_from(&args.gateway_domain);
    settings.gateway_url.clone_from(&args.gateway_url);
    settings.http_gateways.clone_from(&args.http_gateway);
    let network = &mut settings.network;
    network.listen.clone_from(&args.swarm);
    network.announce.clone_from(&args.announce);
    network.bootstrap.clone_from(&args.bootstrap);
    network.routers.clone_from(&args.router);
    network.provide = provide;
    network.public = match args.network {
        NetworkName::None => pinfold_node::net::PublicNetwork::None,
        NetworkName::Amino => pinfold_node::net::PublicNetwork::Amino,
    };
    settings
}

fn node_lines(node: &Node) -> Vec<String> {
    let swarm = node.addresses().into_iter().map(|address| format!("  swarm     {address}"));
    let gateway = node.gateway_address().map(|address| format!("  gateway   http://{address}"));
    swarm.chain(gateway).collect()
}

fn metrics_line(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| format!("  metrics   http://{address}/metrics"))
}

/// What rereading the blocks found.
pub(crate) struct Blocks {
    pub(crate) blocks: u64,
    pub(crate) differences: Vec<String>,
}

/// Whether `up` has run with this data folder, and so a node with it.
pub(crate) fn has_node(data: &Path) -> bool {
    data.join(NODE_DIR).exists()
}

/// Rereads every block of the node in a data folder, which must not run, and
/// recounts its references.
pub(crate) async fn check_blocks(data: &Path) -> Result<Blocks> {
    let dir = data.join(NODE_DIR);
    let dir = if dir.exists() { dir } else { data.to_owned() };
    let meter = Meter::new("rereading the blocks", "blocks");
    let counts = meter.counts();
    let reread = tokio::task::spawn_blocking(move || pinfold_node::check(&dir, counts));
    let checked =
        meter.watch(reread).await?.context("cannot check the block store; is `pinfold up` running on it?")?;
    Ok(Blocks { blocks: checked.blocks, differences: checked.differences })
}
