//! Two nodes exchange blocks.

mod common;

use common::{Node, block, collect};

async fn fetch(count: usize, length: usize) {
    let (server, client) = (Node::start().await, Node::start().await);
    let cids: Vec<_> = (0..count).map(|i| server.blocks.insert(block(i, length))).collect();
    client.connect(&server.address).await;
    let mut session = client.handle.new_session();
    session.add_peer(server.peer);
    let started = std::time::Instant::now();
    session.want(cids.iter().copied());
    let mut events = Vec::new();
    let blocks = collect(&mut session, count, |event| events.push(event)).await;
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
    fetch(1_024, 256 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_blocks_are_fetched() {
    fetch(64, 2 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_tiny_blocks_are_fetched() {
    fetch(50_000, 100).await;
}
