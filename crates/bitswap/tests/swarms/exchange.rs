//! Two nodes exchange blocks.

use crate::common::{Node, PATIENCE, block, cid_of, collect, eventually, next};
use pinfold_bitswap::Event;

async fn fetch(count: usize, length: usize) {
    let (server, client) = (Node::start().await, Node::start().await);
    let cids: Vec<_> = (0..count).map(|i| server.blocks.insert(block(i, length))).collect();
    client.connect(&server.address).await;
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    let started = std::time::Instant::now();
    let mut events = Vec::new();
    let mut blocks = Vec::new();
    for some in cids.chunks(50_000) {
        assert_eq!(session.want(some.iter().copied()), []);
        blocks.extend(collect(&mut session, some.len(), |event| events.push(event)).await);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{count} blocks of {length}: {:.0} MiB/s, {:.0} blocks/s",
        (count * length) as f64 / seconds / 1_048_576.0,
        count as f64 / seconds
    );
    assert_eq!(blocks.len(), count);
    assert_eq!(events, []);
    assert_eq!(session.wanted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_fetched() {
    fetch(1, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blocks_are_fetched() {
    fetch(256, 256 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_blocks_are_fetched() {
    fetch(24, 2 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_tiny_blocks_are_fetched() {
    fetch(100_000, 100).await;
}

#[tokio::test]
async fn what_nobody_has_is_told_and_comes_when_it_is_there() {
    let (server, client) = (Node::start().await, Node::start().await);
    client.connect(&server.address).await;
    let data = block(1, 5_000);
    let cid = cid_of(&data);
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    session.want([cid]);
    assert_eq!(next(&mut session).await, Event::DontHave { cid, from: server.peer });
    assert_eq!(next(&mut session).await, Event::Stalled { cids: vec![cid] });
    server.blocks.insert(data.clone());
    server.handle.notify_new([cid]);
    assert_eq!(next(&mut session).await, Event::Block { cid, data, from: server.peer });
}

#[tokio::test]
async fn a_block_that_is_gone_when_it_is_read_is_not_had() {
    let (server, client) = (Node::start().await, Node::start().await);
    client.connect(&server.address).await;
    let cids: Vec<_> = (0..40).map(|i| server.blocks.insert(block(i, 256 << 10))).collect();
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    server.blocks.lose_on_read(cids[3]);
    session.want(cids.iter().copied());
    let mut missing = Vec::new();
    collect(&mut session, 39, |event| missing.push(event)).await;
    assert!(missing.contains(&Event::DontHave { cid: cids[3], from: server.peer }));
}

#[tokio::test]
async fn a_fetch_survives_a_lost_connection() {
    let (server, client) = (Node::start().await, Node::start().await);
    let cids: Vec<_> = (0..200).map(|i| server.blocks.insert(block(i, 100_000))).collect();
    client.connect(&server.address).await;
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    session.want(cids.iter().copied());
    collect(&mut session, 20, |_| ()).await;
    client.disconnect(server.peer);
    let (mut got, mut gone) = (20, false);
    while !gone {
        match next(&mut session).await {
            Event::Block { .. } => got += 1,
            event => gone |= event == Event::PeerGone(server.peer),
        }
    }
    assert!(got < 200, "the connection was lost in the middle");
    client.connect(&server.address).await;
    collect(&mut session, 200 - got, |_| ()).await;
    assert_eq!(session.wanted(), 0);
}

#[tokio::test]
async fn a_session_ends_with_the_behaviour() {
    let node = Node::start().await;
    let mut session = node.handle.new_session();
    drop(node);
    let ended = tokio::time::timeout(PATIENCE, session.next()).await.expect("in time");
    assert_eq!(ended, None);
}

#[tokio::test]
async fn wants_of_a_dropped_session_are_cancelled() {
    let (server, client) = (Node::start().await, Node::start().await);
    client.connect(&server.address).await;
    let session = client.handle.new_session();
    session.add_peer(server.peer);
    session.want((0..10).map(|i| cid_of(&block(i, 100))));
    eventually(|| server.handle.stats().served_wants == 10).await;
    drop(session);
    eventually(|| server.handle.stats().served_wants == 0).await;
    assert_eq!(client.handle.stats().wants, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_is_fetched_block_by_block() {
    let (server, client) = (Node::start().await, Node::start().await);
    client.connect(&server.address).await;
    let cids: Vec<_> = (0..500).map(|i| server.blocks.insert(block(i, 500))).collect();
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    let started = std::time::Instant::now();
    for cid in cids {
        session.want([cid]);
        collect(&mut session, 1, |_| ()).await;
    }
    println!("a chain: {:.0} blocks/s", 500.0 / started.elapsed().as_secs_f64());
}
