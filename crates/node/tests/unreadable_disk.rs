//! A disk of which a part cannot be read: the blocks there are never served,
//! told as lost and fetched from their origin again, and the pin is whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinfold_bitswap::Event;
use pinfold_blockstore::RootState;
use pinfold_blockstore::io::{DiskIo, Io};
use pinfold_core::content::{BlockCid, ContentKey};
use pinfold_node::{Node, Settings};
use pinfold_node_api::EventKind;

mod support;
#[path = "../../blockstore/tests/common/watched.rs"]
mod watched;

use support::dag::{assignment, blocks, hold, id};
use support::node;
use support::service::FakeService;
use watched::Watched;

/// How long an answer may take that comes at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Parts of files that cannot be read.
type Bad = Arc<Mutex<Vec<(String, Range<u64>)>>>;

/// A real disk, save for those.
fn bad_disk(dir: &Path, bad: &Bad) -> impl Io + 'static {
    let bad = bad.clone();
    Watched::new(DiskIo::new(dir).unwrap(), move |name, offset, len| {
        const EIO: i32 = 5;
        let end = offset + len as u64;
        let is_bad =
            |(file, range): &(String, Range<u64>)| file == name && range.start < end && offset < range.end;
        let is_bad = bad.lock().unwrap().iter().any(is_bad);
        if is_bad { Err(std::io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    })
}

/// From now on the sectors where a block lies cannot be read.
fn spoil(disk: &Path, bad: &Bad, bytes: &[u8]) {
    for entry in std::fs::read_dir(disk).unwrap() {
        let entry = entry.unwrap();
        let segment = std::fs::read(entry.path()).unwrap();
        if let Some(at) = segment.windows(bytes.len()).position(|window| window == bytes) {
            let name = entry.file_name().into_string().unwrap();
            bad.lock().unwrap().push((name, at as u64..(at + bytes.len()) as u64));
            return;
        }
    }
    panic!("the block is on no disk");
}

/// Settings of a node with a gateway.
fn settings(dir: &Path, service: &FakeService) -> Settings {
    Settings { gateway: Some("127.0.0.1:0".parse().unwrap()), ..node::settings(dir, service) }
}

/// Whether the gateway answers with 200, and its answer's body.
async fn gateway(address: SocketAddr, cid: BlockCid) -> (bool, Vec<u8>) {
    let ask = move || {
        let mut socket = TcpStream::connect(address).unwrap();
        write!(socket, "GET /ipfs/{cid}?format=raw HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (answer.starts_with(b"HTTP/1.1 200 "), answer.split_off(head + 4))
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// Asks a node by Bitswap for a block that it refuses and one that it has.
async fn assert_refused(reader: &Node, node: &Node, refused: BlockCid, held: BlockCid) {
    reader.network().dial(Some(node.peer_id()), node.addresses(), true).await.unwrap();
    let mut session = reader.network().bitswap().new_session();
    session.add_peer(node.peer_id());
    assert!(session.want([refused, held]).is_empty());
    let (mut is_refused, mut is_served) = (false, false);
    while !(is_refused && is_served) {
        match tokio::time::timeout(PATIENCE, session.next()).await.expect("an answer").unwrap() {
            Event::Block { cid, .. } => {
                assert_eq!(cid, held, "a block that cannot be read is served");
                is_served = true;
            }
            Event::DontHave { cid, .. } => is_refused |= cid == refused,
            _ => {}
        }
    }
}

/// Whether a content was stored after the last time that it was told lost.
fn is_mended(service: &FakeService) -> bool {
    let events = service.events();
    let lost = events.iter().rposition(|event| matches!(event.kind, EventKind::Lost { .. }));
    let stored = events.iter().rposition(|event| matches!(event.kind, EventKind::Stored { .. }));
    lost.is_some() && stored > lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_not_served_and_fetched_again() {
    let (near, far, other) =
        (FakeService::start().await, FakeService::start().await, FakeService::start().await);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [origin_dir, dir, reader_dir] = dirs.each_ref().map(tempfile::TempDir::path);
    let origin = Node::start(settings(origin_dir, &far)).await.unwrap();
    let (root, blocks) = blocks(20, 1_000);
    hold(&origin, &root, &blocks);
    let (disk, bad) = (dir.join("disk"), Bad::default());
    let io = bad_disk(&disk, &bad);
    let node = Node::start_on(Arc::new(io), settings(dir, &near)).await.unwrap();
    let addresses = origin.addresses().iter().map(ToString::to_string).collect();
    near.assign(assignment(1, &root, addresses));
    near.stored(id(1)).await;
    // Nothing is mended while it is looked for.
    origin.shutdown().await;
    drop(origin);

    let cids: Vec<BlockCid> = blocks.iter().map(|(cid, _)| *cid).collect();
    let address = node.gateway_address().unwrap();
    spoil(&disk, &bad, &blocks[7].1);
    let (is_served, body) = gateway(address, cids[7]).await;
    assert!(!is_served && body != blocks[7].1, "a block that cannot be read is served");
    assert_eq!(gateway(address, cids[8]).await, (true, blocks[8].1.clone()));
    let reader = Node::start(settings(reader_dir, &other)).await.unwrap();
    spoil(&disk, &bad, &blocks[9].1);
    assert_refused(&reader, &node, cids[9], cids[10]).await;
    let lost = |kind: &EventKind| matches!(kind, EventKind::Lost { .. }).then_some(());
    near.event("lost", id(1), lost).await;

    let origin = Node::start(settings(origin_dir, &far)).await.unwrap();
    origin.network().dial(Some(node.peer_id()), node.addresses(), true).await.unwrap();
    let store = node.held().store();
    let is_whole = |service: &FakeService| is_mended(service) && store.lost(1).unwrap().is_empty();
    near.wait("stored again", |service| is_whole(service).then_some(())).await;
    for (cid, (_, bytes)) in cids.iter().zip(&blocks) {
        assert_eq!(gateway(address, *cid).await, (true, bytes.clone()));
    }
    let info = store.root(ContentKey::of(&root).as_bytes()).unwrap().unwrap();
    assert_eq!((info.state, info.blocks), (RootState::Held, blocks.len() as u64));
    assert_eq!(store.check().unwrap().differences, 0);
    for node in [&origin, &node, &reader] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_reads_is_found_and_fetched_again() {
    let (near, far) = (FakeService::start().await, FakeService::start().await);
    let (origin_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Node::start(settings(origin_dir.path(), &far)).await.unwrap();
    let (root, blocks) = blocks(20, 1_000);
    hold(&origin, &root, &blocks);
    let (disk, bad) = (dir.path().join("disk"), Bad::default());
    let often = Settings {
        scrub_pause: Duration::from_millis(50),
        scrub_bytes_per_second: u64::MAX,
        ..settings(dir.path(), &near)
    };
    let node = Node::start_on(Arc::new(bad_disk(&disk, &bad)), often).await.unwrap();
    near.assign(assignment(1, &root, origin.addresses().iter().map(ToString::to_string).collect()));
    near.stored(id(1)).await;
    spoil(&disk, &bad, &blocks[7].1);
    near.wait("stored again", |service| is_mended(service).then_some(())).await;
    for node in [&origin, &node] {
        node.shutdown().await;
    }
}
