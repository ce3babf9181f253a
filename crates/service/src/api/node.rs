//! The node API's server side: hello, pull, report, inventory, denylist.
//!
//! Handlers only translate; what a message does is decided in the database,
//! which also refuses what was seen before.

use std::{ops::ControlFlow, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use pinfold_node_api::{
    Denylist, Event, EventKind, Hello, HelloAck, Inventory, InventoryAck, MAX_ALLOCATIONS, MAX_EVENTS,
    MAX_PULL_WAIT_MS, Pull, Pulled, Report, ReportAck, VERSION,
};
use tokio::{sync::broadcast, time::Instant};

use super::{
    node_auth::{NodeCall, NodeError},
    peers,
    state::App,
};
use crate::db::{Changed, Channel, NodeHello, NodeRequest};

/// How often a node reports at least. Work is withheld from one that misses
/// several.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Addresses of one node; more than any real one has.
const MAX_ADDRESSES: usize = 32;
/// Bytes of a node's agent text and gateway URL.
const MAX_TEXT: usize = 512;
/// Characters of a node's sentence about a failure.
const MAX_DETAIL: usize = 500;
/// A waiting pull asks the database again at least this often: work can become
/// due by time alone, and a told change can be missed.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Changes that come together are asked for together.
const GATHER: Duration = Duration::from_millis(10);

/// `GET /node/v1/service`: what requests are signed for.
pub(crate) async fn service(State(app): State<App>) -> Json<String> {
    Json(app.service_id.clone())
}

/// `POST /node/v1/hello`.
pub(crate) async fn hello(State(app): State<App>, call: NodeCall) -> Result<Json<HelloAck>, NodeError> {
    let hello: Hello = call.message()?;
    check_hello(&hello, call.request)?;
    let node = app.database.hello(node_hello(hello, call.request.key)).await?;
    tracing::info!(node = node.id, session = node.session, agent = node.hello.agent, "a node said hello");
    Ok(Json(HelloAck {
        session: node.session,
        database_generation: app.database.database_generation().await?,
        heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
        allow_private_addresses: app.allow_private_addresses,
    }))
}

fn check_hello(hello: &Hello, request: NodeRequest) -> Result<(), NodeError> {
    if hello.version != VERSION {
        let text = format!("this service speaks version {VERSION} of the node API; update the older side");
        return Err(NodeError::new(StatusCode::UPGRADE_REQUIRED, "version", text));
    }
    if request.session != 0 || request.sequence != hello.sent_at_ms {
        let text = "a hello is signed with session 0 and its sent_at_ms as the sequence".to_owned();
        return Err(NodeError::malformed(text));
    }
    if hello.addresses.len() > MAX_ADDRESSES {
        return Err(NodeError::malformed(format!("a node has at most {MAX_ADDRESSES} addresses")));
    }
    let foreign = hello.addresses.iter().find(|address| !peers::belongs_to(address, &request.key));
    if let Some(address) = foreign {
        let own = peers::peer_id(&request.key);
        let text = format!("the address {address:?} is no multiaddr that ends in /p2p/{own}, the node's own");
        return Err(NodeError::malformed(text));
    }
    let gateway = hello.gateway.as_deref().unwrap_or_default();
    if hello.agent.len() > MAX_TEXT
        || gateway.len() > MAX_TEXT
        || [gateway, &hello.agent].concat().contains('\0')
    {
        return Err(NodeError::malformed(format!("agent and gateway have at most {MAX_TEXT} bytes of text")));
    }
    Ok(())
}

fn node_hello(hello: Hello, key: [u8; 32]) -> NodeHello {
    NodeHello {
        key,
        // Only keys that the operator named come this far.
        operated: true,
        addresses: hello.addresses,
        gateway: hello.gateway,
        capacity_bytes: hello.capacity_bytes,
        used_bytes: hello.used_bytes,
        agent: hello.agent,
        sent_at: hello.sent_at_ms,
    }
}

/// `POST /node/v1/pull`: work now, or as soon as there is some.
pub(crate) async fn pull(State(app): State<App>, call: NodeCall) -> Result<Json<Pulled>, NodeError> {
    let pull: Pull = call.message()?;
    if pull.acknowledged.len() > MAX_ALLOCATIONS {
        return Err(NodeError::malformed(format!(
            "a pull acknowledges at most {MAX_ALLOCATIONS} allocations"
        )));
    }
    let wait = Duration::from_millis(pull.wait_ms.min(MAX_PULL_WAIT_MS));
    let known_denylist = pull.denylist_version;
    // Before the first look, so that no change falls between the two.
    let mut waiting = Waiting {
        changes: app.database.subscribe(),
        denylist: app.denylists.subscribe(),
        until: Instant::now() + wait,
    };
    let mut pulled = app.database.pull(call.request, pull).await?;
    loop {
        pulled.denylist_version = app.denylists.version();
        let work = !(pulled.assignments.is_empty() && pulled.releases.is_empty());
        if work || pulled.denylist_version != known_denylist {
            return Ok(Json(pulled));
        }
        if waiting.for_change(&app).await.is_break() {
            return Ok(Json(pulled));
        }
        pulled = app.database.pull_again(call.request).await?;
    }
}

struct Waiting {
    changes: broadcast::Receiver<Changed>,
    denylist: tokio::sync::watch::Receiver<i64>,
    until: Instant,
}

impl Waiting {
    /// Waits for something to look for; breaks when the wait is over.
    async fn for_change(&mut self, app: &App) -> ControlFlow<()> {
        let ask_again = Instant::now() + ASK_AGAIN;
        loop {
            tokio::select! {
                () = app.stopping.cancelled() => return ControlFlow::Break(()),
                () = tokio::time::sleep_until(self.until) => return ControlFlow::Break(()),
                () = tokio::time::sleep_until(ask_again) => return ControlFlow::Continue(()),
                changed = self.denylist.changed() => {
                    return if changed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
                }
                changed = self.changes.recv() => match changed {
                    Ok(Changed { work: false, .. }) => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        tokio::time::sleep(GATHER).await;
                        self.changes = self.changes.resubscribe();
                        return ControlFlow::Continue(());
                    }
                    Err(broadcast::error::RecvError::Closed) => return ControlFlow::Break(()),
                },
            }
        }
    }
}

/// `POST /node/v1/report`.
pub(crate) async fn report(State(app): State<App>, call: NodeCall) -> Result<Json<ReportAck>, NodeError> {
    let mut report: Report = call.message()?;
    if report.events.len() > MAX_EVENTS {
        return Err(NodeError::malformed(format!("a report has at most {MAX_EVENTS} events")));
    }
    report.events.iter_mut().for_each(trim_detail);
    metrics::counter!("pinfold_node_events_total").increment(report.events.len() as u64);
    Ok(Json(app.database.report(call.request, report).await?))
}

/// A node's sentence ends in its pins' owners' lists: it is cut to a sentence's
/// length and freed of control characters.
fn trim_detail(event: &mut Event) {
    if let EventKind::Failed { detail, .. } = &mut event.kind {
        *detail = detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    }
}

/// `POST /node/v1/inventory`.
pub(crate) async fn inventory(
    State(app): State<App>,
    call: NodeCall,
) -> Result<Json<InventoryAck>, NodeError> {
    let inventory: Inventory = call.message()?;
    if inventory.held.len() > MAX_ALLOCATIONS {
        return Err(NodeError::malformed(format!("an inventory has at most {MAX_ALLOCATIONS} entries")));
    }
    if !inventory.held.is_sorted_by_key(|held| held.content) {
        return Err(NodeError::malformed("an inventory ascends by content".to_owned()));
    }
    Ok(Json(app.database.inventory(call.request, inventory).await?))
}

/// `POST /node/v1/denylist`: the rules that the service applies now.
pub(crate) async fn denylist(State(app): State<App>, call: NodeCall) -> Result<Json<Denylist>, NodeError> {
    app.database.accept(call.request, Channel::Denylist).await?;
    Ok(Json(app.denylists.for_nodes()))
}
