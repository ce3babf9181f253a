//! Nodes: their sessions, and the work that they pull.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, LazyLock},
};

use pinfold_node_api::{
    AllocationId, Assignment, MAX_ALLOCATIONS, MAX_ORIGINS, PeerHint, Pull, Pulled, Release,
};

use super::{
    content,
    error::{NodeRefusal, Result},
    inventories,
    pins::OF_ROOT,
    placement::{Phase, millis},
    records,
    sql::{Row, Value, values},
    tx::{Question, Tx},
    types::{Channel, Node, NodeHello, NodeRequest, Provider},
};

const COLUMNS: &str = "id, key, operated, addresses, gateway, capacity, used, agent, sent_at, session, \
    last_seen";

static ALL: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} FROM node ORDER BY id"));

/// A silence longer than this, in ms, is no pause between two messages: what a
/// node was to fetch counts its deadline from its return.
const ABSENCE_MS: i64 = 10 * 60_000;

/// Pins of one account whose origins are told, the newest first.
const MAX_PINS_OF_ORIGINS: i64 = 8;

/// Nodes that delegated routing names for a content.
const MAX_PROVIDERS: i64 = 100;

/// The longest text that a node may say about itself or a failure.
pub(crate) const MAX_TEXT: usize = 500;

/// Every node, read once for each transaction.
pub(crate) async fn all(tx: &mut Tx) -> Result<Arc<Vec<Node>>> {
    let [rows] = tx.query_all([question(tx)]).await?;
    answered(tx, &rows)
}

/// What to ask for [`answered`]: nothing where it was asked before.
pub(crate) fn question(tx: &Tx) -> Question<'static> {
    (&ALL, if tx.unit.nodes.is_some() { Vec::new() } else { vec![Vec::new()] })
}

/// Every node, of the rows that answer [`question`].
pub(crate) fn answered(tx: &mut Tx, rows: &[Vec<Row>]) -> Result<Arc<Vec<Node>>> {
    if let Some(nodes) = &tx.unit.nodes {
        return Ok(Arc::clone(nodes));
    }
    let nodes: Vec<Node> = rows.iter().flatten().map(|row| read(tx, row)).collect::<Result<_>>()?;
    Ok(Arc::clone(tx.unit.nodes.insert(Arc::new(nodes))))
}

fn read(tx: &Tx, row: &Row) -> Result<Node> {
    let last_seen = row.int(10)?;
    let hello = NodeHello {
        key: row.bytes32(1)?,
        operated: row.flag(2)?,
        addresses: records::decode(row.text(3)?)?,
        gateway: row.opt_text(4)?.map(str::to_owned),
        capacity_bytes: row.count(5)?,
        used_bytes: row.count(6)?,
        agent: row.text(7)?.to_owned(),
        sent_at: row.int(8)?,
    };
    let live = tx.now() - last_seen <= millis(tx.settings.node_live);
    Ok(Node { id: row.int(0)?, hello, session: row.int(9)?, last_seen, live })
}

/// Opens a session. Its number is above every earlier one, even after the
/// database was restored: it is the time, or one more than the last.
pub(crate) async fn hello(tx: &mut Tx, hello: &NodeHello) -> Result<Node> {
    let sql = format!(
        "INSERT INTO node (key, operated, addresses, gateway, capacity, used, agent, sent_at, session,
            last_seen, alive_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9)
         ON CONFLICT (key) DO UPDATE SET operated = excluded.operated, addresses = excluded.addresses,
            gateway = excluded.gateway, capacity = excluded.capacity, used = excluded.used,
            agent = excluded.agent, sent_at = excluded.sent_at,
            session = GREATEST(node.session + 1, excluded.session),
            last_seen = GREATEST(node.last_seen, excluded.last_seen),
            alive_since = CASE WHEN excluded.last_seen - node.last_seen > {ABSENCE_MS}
                THEN excluded.last_seen ELSE node.alive_since END,
            seq_pull = 0, seq_report = 0, seq_inventory = 0, seq_denylist = 0, repair_cursor = NULL
         WHERE node.sent_at < excluded.sent_at RETURNING {COLUMNS}"
    );
    let parameters = values![
        &hello.key,
        hello.operated,
        records::encode(&hello.addresses),
        hello.gateway.as_deref().map(clean),
        content::amount(hello.capacity_bytes),
        content::amount(hello.used_bytes),
        clean(&hello.agent),
        hello.sent_at,
        tx.now()
    ];
    let row = tx.first(&sql, &parameters).await?.ok_or(NodeRefusal::Replayed)?;
    super::jobs::begin_sweep(tx).await?;
    tx.unit.nodes = None;
    read(tx, &row)
}

/// Accepts a request that was not seen before, and notes that the node lives.
pub(crate) async fn accept(tx: &mut Tx, request: NodeRequest, channel: Channel) -> Result<Node> {
    let sequence = match channel {
        Channel::Pull => "seq_pull",
        Channel::Report => "seq_report",
        Channel::Inventory => "seq_inventory",
        Channel::Denylist => "seq_denylist",
    };
    let sql = format!(
        "UPDATE node SET {sequence} = $3, last_seen = GREATEST(last_seen, $4)
         WHERE key = $1 AND session = $2 AND {sequence} < $3 RETURNING {COLUMNS}"
    );
    let parameters = values![&request.key, request.session, request.sequence, tx.now()];
    match tx.first(&sql, &parameters).await? {
        Some(row) => {
            tx.unit.nodes = None;
            read(tx, &row)
        }
        None => Err(refusal(tx, request).await?.into()),
    }
}

/// The number of the node whose report was accepted before; a newer one, or a
/// newer session, has the rest of it refused.
pub(crate) async fn accepted_report(tx: &mut Tx, request: NodeRequest) -> Result<i64> {
    let sql = "SELECT id FROM node WHERE key = $1 AND session = $2 AND seq_report = $3";
    match tx.first(sql, &values![&request.key, request.session, request.sequence]).await? {
        Some(row) => row.int(0),
        None => Err(refusal(tx, request).await?.into()),
    }
}

async fn refusal(tx: &mut Tx, request: NodeRequest) -> Result<NodeRefusal> {
    let row = tx.first("SELECT session FROM node WHERE key = $1", &values![&request.key]).await?;
    Ok(match row {
        None => NodeRefusal::Unknown,
        Some(row) if row.int(0)? != request.session => NodeRefusal::OldSession,
        Some(_) => NodeRefusal::Replayed,
    })
}

/// The number of the node whose pull this is, which was accepted before, and
/// whether there is work for it.
pub(crate) async fn waiting(tx: &mut Tx, request: NodeRequest) -> Result<(i64, bool)> {
    let sql = "SELECT id FROM node WHERE key = $1 AND session = $2 AND seq_pull = $3";
    let found = tx.first(sql, &values![&request.key, request.session, request.sequence]).await?;
    let Some(row) = found else { return Err(refusal(tx, request).await?.into()) };
    let node = row.int(0)?;
    Ok((node, has_work(tx, node).await?))
}

/// Notes what the node has noted, and answers with its work.
pub(crate) async fn pull(tx: &mut Tx, request: NodeRequest, pull: &Pull) -> Result<Pulled> {
    let node = accept(tx, request, Channel::Pull).await?;
    let mut acknowledged: Vec<AllocationId> = pull.acknowledged.clone();
    acknowledged.truncate(2 * MAX_ALLOCATIONS);
    acknowledged.sort_unstable();
    let contents: BTreeSet<i64> = acknowledged.iter().map(|id| id.content).collect();
    let shared = share(tx, node.id, contents).await?;
    let sql = "UPDATE allocation SET acked = sent
        WHERE content = $1 AND node = $2 AND generation = $3 AND acked < sent";
    let lists: Vec<_> =
        acknowledged.iter().map(|id| values![id.content, node.id, id.generation].to_vec()).collect();
    tx.execute_many(sql, &lists).await?;
    let sql = "DELETE FROM stray WHERE content = $1 AND node = $2 AND generation = $3 AND confirmed = 1";
    tx.execute_many(sql, &lists).await?;
    shared_work(tx, node.id, shared.as_ref()).await
}

/// What a node is told of its allocations: those to be fetched, and those to be
/// let go once that is settled.
async fn told(tx: &mut Tx, node: i64) -> Result<&'static [Phase]> {
    let is_settled = inventories::is_settled(tx, node).await?;
    Ok(if is_settled { &[Phase::Assigned, Phase::Releasing] } else { &[Phase::Assigned] })
}

/// Locks the contents of what the node acknowledges and may be told, against
/// whoever changes their allocations; other nodes' pulls may go on. Answers
/// which, and nothing on SQLite, which has one writer.
async fn share(tx: &mut Tx, node: i64, acknowledged: BTreeSet<i64>) -> Result<Option<BTreeSet<i64>>> {
    if tx.is_sqlite() {
        return Ok(None);
    }
    let mut contents = acknowledged;
    // What is acknowledged is still among what waits.
    let most = content::amount((MAX_ALLOCATIONS + contents.len()) as u64);
    for &phase in told(tx, node).await? {
        let sql = "SELECT content FROM allocation
            WHERE node = $1 AND acked < version AND state = $2 ORDER BY content LIMIT $3";
        for row in tx.query(sql, &values![node, phase as i64, most]).await? {
            contents.insert(row.int(0)?);
        }
    }
    let lists: Vec<_> = contents.iter().map(|&content| values![content].to_vec()).collect();
    tx.query_many("SELECT id FROM content WHERE id = $1 FOR SHARE", &lists).await?;
    Ok(Some(contents))
}

/// Whether the node has something to pull.
async fn has_work(tx: &mut Tx, node: i64) -> Result<bool> {
    let phases: Vec<_> = told(tx, node).await?.iter().map(|&phase| (phase as i64).to_string()).collect();
    let sql = format!(
        "SELECT 1 FROM allocation WHERE node = $1 AND acked < version AND state IN ({}) LIMIT 1",
        phases.join(", ")
    );
    if tx.first(&sql, &values![node]).await?.is_some() {
        return Ok(true);
    }
    let sql = "SELECT 1 FROM stray WHERE node = $1 AND confirmed = 1 LIMIT 1";
    Ok(tx.first(sql, &values![node]).await?.is_some())
}

/// What the node has not acknowledged.
pub(crate) async fn work(tx: &mut Tx, node: i64) -> Result<Pulled> {
    let shared = share(tx, node, BTreeSet::new()).await?;
    shared_work(tx, node, shared.as_ref()).await
}

/// What the node has not acknowledged, of contents that are [`share`]d.
async fn shared_work(tx: &mut Tx, node: i64, shared: Option<&BTreeSet<i64>>) -> Result<Pulled> {
    let mut pulled =
        Pulled { denylist_version: super::property::number(tx, "denylist").await?, ..Pulled::default() };
    for &phase in told(tx, node).await? {
        let sql = "SELECT a.content, a.generation, a.version, a.repair, c.cid, c.granted, c.bytes
            FROM allocation a JOIN content c ON c.id = a.content
            WHERE a.node = $1 AND a.acked < a.version AND a.state = $2 ORDER BY a.content LIMIT $3";
        let mut rows = tx.query(sql, &values![node, phase as i64, MAX_ALLOCATIONS as i64]).await?;
        // What came since is told by the next pull, which its commit wakes.
        rows.retain(|row| shared.is_none_or(|shared| row.int(0).is_ok_and(|id| shared.contains(&id))));
        note_sent(tx, node, &rows).await?;
        match phase {
            Phase::Assigned => pulled.assignments = assignments(tx, node, &rows).await?,
            _ => pulled.releases = rows.iter().map(release).collect::<Result<_>>()?,
        }
    }
    strays(tx, node, &mut pulled).await?;
    Ok(pulled)
}

async fn note_sent(tx: &mut Tx, node: i64, rows: &[Row]) -> Result<()> {
    let sql = "UPDATE allocation SET sent = $3 WHERE content = $1 AND node = $2 AND sent < $3";
    let list = |row: &Row| Ok(values![row.int(0)?, node, row.int(2)?].to_vec());
    let lists = rows.iter().map(list).collect::<Result<Vec<_>>>()?;
    tx.execute_many(sql, &lists).await?;
    Ok(())
}

fn release(row: &Row) -> Result<Release> {
    let allocation = AllocationId { content: row.int(0)?, generation: row.int(1)? };
    Ok(Release { allocation, root: row.text(4)?.to_owned() })
}

/// Contents unknown to this database that the operator lets go.
async fn strays(tx: &mut Tx, node: i64, pulled: &mut Pulled) -> Result<()> {
    let room = MAX_ALLOCATIONS - pulled.releases.len().min(MAX_ALLOCATIONS);
    let sql = "SELECT content, generation FROM stray WHERE node = $1 AND confirmed = 1
        ORDER BY content LIMIT $2";
    for row in tx.query(sql, &values![node, room as i64]).await? {
        let allocation = AllocationId { content: row.int(0)?, generation: row.int(1)? };
        pulled.releases.push(Release { allocation, root: String::new() });
    }
    Ok(())
}

async fn assignments(tx: &mut Tx, node: i64, rows: &[Row]) -> Result<Vec<Assignment>> {
    let contents = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    let mut origins = origins(tx, &contents).await?;
    let peers = "SELECT node FROM allocation WHERE content = $1 AND node <> $2 AND state IN (0, 1)";
    let peers = each(tx, peers, &contents, Some(node)).await?;
    // Written as look-ups: of a join or EXISTS PostgreSQL makes a join, and
    // reads all that the node has while it has no statistics.
    let predecessors = "SELECT (SELECT o.cid FROM content o WHERE o.id = h.content) FROM hold h
        WHERE h.successor = $1 AND (SELECT COUNT(*) FROM allocation a
            WHERE a.content = h.content AND a.node = $2 AND a.state = 1) > 0 LIMIT 1";
    let predecessors = each(tx, predecessors, &contents, Some(node)).await?;
    let fairness = "SELECT account FROM holding WHERE content = $1 AND pins > 0 ORDER BY since LIMIT 1";
    let fairness = each(tx, fairness, &contents, None).await?;
    let nodes = all(tx).await?;
    let mut assignments = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        assignments.push(Assignment {
            allocation: AllocationId { content: row.int(0)?, generation: row.int(1)? },
            root: row.text(4)?.to_owned(),
            origins: std::mem::take(&mut origins[at]),
            peers: hints(&nodes, &peers[at])?,
            predecessor: predecessors[at].first().map(|row| row.text(0).map(str::to_owned)).transpose()?,
            fairness: fairness[at].first().map_or(Ok(0), |row| row.int(0))?,
            granted_bytes: row.int(5)?.max(row.opt_int(6)?.unwrap_or(0)).unsigned_abs(),
            repair: row.flag(3)?,
        });
    }
    Ok(assignments)
}

/// The rows of a statement for each content, and for the node where it is one
/// of the parameters.
async fn each(tx: &mut Tx, sql: &str, contents: &[i64], node: Option<i64>) -> Result<Vec<Vec<Row>>> {
    let list = |&content: &i64| [Some(content), node].into_iter().flatten().map(Value::Int).collect();
    let lists: Vec<Vec<Value>> = contents.iter().map(list).collect();
    tx.query_many(sql, &lists).await
}

/// The origins of each content: of the accounts that want it and name some,
/// those that have wanted it for longest first.
async fn origins(tx: &mut Tx, contents: &[i64]) -> Result<Vec<Vec<String>>> {
    let sql = format!(
        "SELECT h.account FROM holding h WHERE h.content = $1 AND h.pins > 0 AND EXISTS (SELECT 1 FROM pin p
            WHERE p.content = h.content AND p.account = h.account AND p.failure IS NULL AND p.origins <> '[]')
         ORDER BY h.since, h.account LIMIT {MAX_ORIGINS}"
    );
    let accounts = each(tx, &sql, contents, None).await?;
    let mut lists = Vec::new();
    for (content, rows) in contents.iter().zip(&accounts) {
        for row in rows {
            lists.push(values![*content, row.int(0)?].to_vec());
        }
    }
    let sql = format!(
        "SELECT origins FROM pin WHERE {OF_ROOT} AND failure IS NULL AND origins <> '[]'
         ORDER BY created DESC LIMIT {MAX_PINS_OF_ORIGINS}"
    );
    let mut named = tx.query_many(&sql, &lists).await?.into_iter();
    let of_content = |rows: &Vec<Row>| {
        let own = named.by_ref().take(rows.len()).map(|pins| of_account(&pins));
        Ok(in_turn(own.collect::<Result<_>>()?))
    };
    accounts.iter().map(of_content).collect()
}

/// The origins that the pins of one account name, the newest first.
fn of_account(pins: &[Row]) -> Result<VecDeque<String>> {
    let mut origins = VecDeque::new();
    for row in pins {
        origins.extend(records::decode::<Vec<String>>(row.text(0)?)?);
    }
    Ok(origins)
}

/// Takes one origin of each account in turn, each once, until there are
/// enough: whatever one account names, the others have their share.
fn in_turn(mut accounts: Vec<VecDeque<String>>) -> Vec<String> {
    let (mut seen, mut origins) = (BTreeSet::new(), Vec::new());
    while !accounts.is_empty() && origins.len() < MAX_ORIGINS {
        accounts.retain_mut(|own| {
            let new = std::iter::from_fn(|| own.pop_front()).find(|origin| seen.insert(origin.clone()));
            let is_left = new.is_some();
            origins.extend(new);
            is_left
        });
    }
    origins.truncate(MAX_ORIGINS);
    origins
}

fn hints(nodes: &[Node], rows: &[Row]) -> Result<Vec<PeerHint>> {
    let ids = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    let known = nodes.iter().filter(|node| ids.contains(&node.id) && node.live);
    Ok(known.map(hint).collect())
}

/// How others reach a node.
pub(crate) fn hint(node: &Node) -> PeerHint {
    PeerHint { addresses: node.hello.addresses.clone(), gateway: node.hello.gateway.clone() }
}

/// Nodes that hold a content, for delegated routing.
pub(crate) async fn providers(tx: &mut Tx, key: &[u8]) -> Result<Vec<Provider>> {
    let sql = "SELECT a.node FROM content c JOIN allocation a ON a.content = c.id AND a.state = 1
        WHERE c.key = $1 AND c.denied IS NULL ORDER BY a.node LIMIT $2";
    let rows = tx.query(sql, &values![key, MAX_PROVIDERS]).await?;
    let ids = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<i64>>>()?;
    let nodes = all(tx).await?;
    let known = nodes.iter().filter(|node| ids.contains(&node.id) && node.live);
    Ok(known
        .map(|node| Provider {
            key: node.hello.key,
            addresses: node.hello.addresses.clone(),
            gateway: node.hello.gateway.clone(),
        })
        .collect())
}

/// A text from outside as it is kept: without control characters, not too
/// long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_TEXT).collect()
}

/// Has the node told again of what it is to hold of a content.
pub(crate) fn tell_again(tx: &mut Tx, content: i64) -> bool {
    let mut told = false;
    for allocation in tx.unit.allocations_of(content).filter(|a| a.phase == Phase::Assigned) {
        allocation.touch();
        told = true;
    }
    told
}
