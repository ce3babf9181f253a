//! Blocks between two networks by Bitswap, over each transport.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};
use net_support::{Memory, PATIENCE, config, join, network, serve};
use pinfold_bitswap::Event;

const RAW: u64 = 0x55;

fn blocks(count: u32, size: usize) -> HashMap<Cid, Bytes> {
    (0..count)
        .map(|n| {
            let data: Bytes = n.to_be_bytes().repeat(size / 4).into();
            (Cid::new_v1(RAW, Code::Sha2_256.digest(&data)), data)
        })
        .collect()
}

#[tokio::test]
async fn blocks_move_over_every_transport() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"] {
        let held = blocks(40, 256 << 10);
        let mut settings = config();
        settings.listen = vec![listen.parse().unwrap()];
        let server = serve(settings, Memory(Arc::new(held.clone()))).await;
        let client = network().await;
        join(&client, &server).await;
        let mut session = client.bitswap().new_session();
        session.add_peer(server.peer_id());
        assert!(session.want(held.keys().copied()).is_empty());
        let mut left = held;
        while !left.is_empty() {
            let event = tokio::time::timeout(PATIENCE, session.next()).await.expect("an event");
            if let Some(Event::Block { cid, data, .. }) = event {
                assert_eq!(left.remove(&cid).unwrap(), data);
            }
        }
        client.shutdown().await;
        server.shutdown().await;
    }
}
