//! Three origins, of which one accepts wants and never answers, one sends what
//! nobody asked for, and one closes every stream that is idle. The third alone
//! is of any use, and the fetch must come to its end over it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::peer::origins::{BITSWAP, Blocks, lie, serve, stall};
use crate::common::raw::{self, Raw};
use crate::common::{Node, block, cid_of, collect};
use bytes::Bytes;
use parking_lot::Mutex;
use pinfold_bitswap::{Event, Session};
use tokio::task::JoinHandle;

/// Blocks that are wanted at a time: more than the first windows of all three
/// origins hold together.
const BATCH: usize = 60;

/// How often that many are wanted.
const BATCHES: usize = 40;

/// The most blocks that may wait for the origin that never sends: 16 that are
/// passed over, 16 that it owes then, and 16 that it is asked until that is
/// seen, each time that it is tried. That is at first and after pauses of 0.5,
/// 1, 2, 4, 8, 16 and 32 s, which is longer than a test waits.
const MAX_WAITED_FOR: usize = 8 * (16 + 16 + 16);

/// How long a stream of ours is idle before it is reset.
const IDLE: Duration = Duration::from_millis(20);

/// Fetches all blocks, a batch after the other; returns who was banned.
async fn fetch(session: &mut Session, datas: &[Bytes]) -> Vec<libp2p::PeerId> {
    let mut banned = Vec::new();
    for batch in datas.chunks(BATCH) {
        assert_eq!(session.want(batch.iter().map(|data| cid_of(data))), []);
        let came = collect(session, batch.len(), |event| match event {
            Event::PeerBanned { peer, .. } => banned.push(peer),
            Event::TooLarge { .. } | Event::NoPeers => panic!("{event:?}"),
            _ => {}
        });
        let came: HashSet<_> = came.await.into_iter().map(|(cid, _)| cid).collect();
        assert_eq!(came.len(), batch.len(), "each came once");
    }
    banned
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_ends_over_the_one_that_only_closes_idle_streams() {
    let node = Node::start().await;
    let (staller, liar, closer) =
        (Raw::start(BITSWAP).await, Raw::start(BITSWAP).await, Raw::start(BITSWAP).await);
    let mut session = node.handle.new_session();
    for origin in [&staller, &liar, &closer] {
        node.connect(&origin.address).await;
        assert!(session.add_peer(origin.peer));
    }
    let datas: Vec<Bytes> = (0..BATCH * BATCHES).map(|number| block(number, 16 << 10)).collect();
    let blocks: Blocks = datas.iter().map(|data| (raw::name(data), data.to_vec())).collect();
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let (liar_peer, noted) = (liar.peer, asked.clone());
    let origins = [
        tokio::spawn(stall(staller, move |cid| {
            noted.lock().insert(cid.to_vec());
        })),
        tokio::spawn(lie(liar, || ())),
        tokio::spawn(serve(closer, Arc::new(blocks), IDLE)),
    ];
    let banned = fetch(&mut session, &datas).await;
    assert_eq!(banned, [liar_peer]);
    assert!(node.handle.banned(&liar_peer).is_some());
    let asked = asked.lock().len();
    assert!((1..=MAX_WAITED_FOR).contains(&asked), "{asked} of {} blocks waited for it", datas.len());
    origins.iter().for_each(JoinHandle::abort);
}
