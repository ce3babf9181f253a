//! Nodes for tests: a swarm on loopback with a block store in memory.

pub(crate) mod peer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId};
use multihash_codetable::{Code, MultihashDigest};
use parking_lot::Mutex;
use peer::{EVENTS, listen, swarm};
pub(crate) use peer::{PATIENCE, proto, raw};
use pinfold_bitswap::{Behaviour, Blocks, Config, Event, Handle, Session};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The codec of raw blocks.
pub(crate) const RAW: u64 = 0x55;

/// Blocks in memory.
#[derive(Default)]
pub(crate) struct Memory {
    blocks: Mutex<HashMap<Cid, Bytes>>,
    lost: Mutex<Option<Cid>>,
    pub(crate) reads: AtomicUsize,
}

impl Memory {
    pub(crate) fn insert(&self, data: impl Into<Bytes>) -> Cid {
        let data = data.into();
        let cid = cid_of(&data);
        self.blocks.lock().insert(cid, data);
        cid
    }

    pub(crate) fn insert_as(&self, cid: Cid, data: impl Into<Bytes>) {
        self.blocks.lock().insert(cid, data.into());
    }

    /// Has a block vanish when it is read.
    pub(crate) fn lose_on_read(&self, cid: Cid) {
        *self.lost.lock() = Some(cid);
    }
}

impl Blocks for Memory {
    fn size(&self, _: &PeerId, cid: &Cid) -> Option<u32> {
        self.blocks.lock().get(cid).map(|data| data.len() as u32)
    }

    fn get(&self, _: &PeerId, cid: &Cid) -> Option<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if *self.lost.lock() == Some(*cid) {
            self.blocks.lock().remove(cid);
        }
        self.blocks.lock().get(cid).cloned()
    }
}

pub(crate) fn cid_of(data: &[u8]) -> Cid {
    Cid::new_v1(RAW, Code::Sha2_256.digest(data))
}

/// Bytes that differ from block to block.
pub(crate) fn block(number: usize, length: usize) -> Bytes {
    let mut state = number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut data = Vec::with_capacity(length + 8);
    data.extend_from_slice(&(number as u64).to_le_bytes());
    while data.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length.max(8));
    data.into()
}

enum Command {
    Dial(Multiaddr),
    Disconnect(PeerId),
}

/// A running node. Dropping it ends it.
pub(crate) struct Node {
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
    pub(crate) handle: Handle,
    pub(crate) blocks: Arc<Memory>,
    commands: mpsc::Sender<Command>,
    connected: Mutex<mpsc::Receiver<()>>,
    refused: Mutex<mpsc::Receiver<()>>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let blocks = Arc::new(Memory::default());
        let (behaviour, handle) = Behaviour::new(config, blocks.clone());
        let mut swarm = swarm(behaviour);
        let address = listen(&mut swarm).await;
        let (commands, mut receiver) = mpsc::channel(EVENTS);
        let (established, connected) = mpsc::channel(EVENTS);
        let (failed, refused) = mpsc::channel(EVENTS);
        let peer = *swarm.local_peer_id();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        match event {
                            SwarmEvent::ConnectionEstablished { .. } => { let _ = established.try_send(()); }
                            SwarmEvent::OutgoingConnectionError { .. } => { let _ = failed.try_send(()); }
                            _ => {}
                        }
                    }
                    command = receiver.recv() => match command {
                        Some(Command::Dial(address)) => swarm.dial(address).expect("dialling a valid address"),
                        Some(Command::Disconnect(peer)) => { let _ = swarm.disconnect_peer_id(peer); }
                        None => return,
                    },
                }
            }
        });
        Self {
            peer,
            address,
            handle,
            blocks,
            commands,
            connected: Mutex::new(connected),
            refused: Mutex::new(refused),
            task,
        }
    }

    /// Connects to another node, and waits until that is done.
    pub(crate) async fn connect(&self, address: &Multiaddr) {
        self.dial(address);
        soon(&self.connected).await;
    }

    /// Waits until a dial has failed.
    pub(crate) async fn refused(&self) {
        soon(&self.refused).await;
    }

    pub(crate) fn dial(&self, address: &Multiaddr) {
        self.commands.try_send(Command::Dial(address.clone())).expect("the node runs");
    }

    pub(crate) fn disconnect(&self, peer: PeerId) {
        self.commands.try_send(Command::Disconnect(peer)).expect("the node runs");
    }
}

async fn soon(events: &Mutex<mpsc::Receiver<()>>) {
    let event = std::future::poll_fn(|cx| events.lock().poll_recv(cx));
    tokio::time::timeout(PATIENCE, event).await.expect("it happens in time").expect("the node runs");
}

/// The next event, within the patience of a test.
pub(crate) async fn next(session: &mut Session) -> Event {
    tokio::time::timeout(PATIENCE, session.next()).await.expect("an event in time").expect("behaviour runs")
}

/// Takes blocks until so many have come; passes other events to `other`.
pub(crate) async fn collect(
    session: &mut Session,
    count: usize,
    mut other: impl FnMut(Event),
) -> Vec<(Cid, Bytes)> {
    let mut blocks = Vec::with_capacity(count);
    while blocks.len() < count {
        match next(session).await {
            Event::Block { cid, data, .. } => {
                assert_eq!(cid_of(&data).hash(), cid.hash());
                blocks.push((cid, data));
            }
            event => other(event),
        }
    }
    blocks
}

/// Polls what no event tells of: statistics, and counts of the tests' own.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it becomes so in time");
}
