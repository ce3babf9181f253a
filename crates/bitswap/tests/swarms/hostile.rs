//! Peers that lie, flood, stall and close streams.

use crate::common::peer::origins::BITSWAP;
use crate::common::proto::Message;
use crate::common::raw::{self, Raw};
use crate::common::{Node, block, cid_of, collect, eventually, next};
use futures::{AsyncReadExt, AsyncWriteExt};
use pinfold_bitswap::{BanReason, Event};
use prost::Message as _;

/// Blocks that a good peer gets while a bad one is looked at: turns enough for
/// what would be done for the bad one.
const SERVED: usize = 200;

/// A node that is connected to a raw peer.
async fn pair() -> (Node, Raw) {
    let (node, raw) = (Node::start().await, Raw::start(BITSWAP).await);
    node.connect(&raw.address).await;
    (node, raw)
}

#[tokio::test]
async fn wrong_bytes_end_in_a_ban() {
    let (node, mut raw) = pair().await;
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    session.want([cid_of(b"right")]);
    let mut wantlist = raw.accept().await;
    let entries = raw::wanted(&raw::read_soon(&mut wantlist).await);
    assert_eq!((entries[0].cid.clone(), entries[0].want_type), (raw::name(b"right"), 0));
    raw.send(&raw::blocks([&b"wrong"[..]])).await;
    let banned = Event::PeerBanned { peer: raw.peer, reason: BanReason::WrongBytes };
    assert_eq!(next(&mut session).await, banned);
    raw.disconnected().await;
    assert!(node.handle.banned(&raw.peer).is_some());
    assert_eq!(next(&mut session).await, Event::NoPeers);
    // It is not let in again.
    node.dial(&raw.address);
    node.refused().await;
    assert_eq!(node.handle.stats().peers, 0);
}

#[tokio::test]
async fn a_block_that_is_too_large_is_refused_in_mid_stream() {
    let (node, mut raw) = pair().await;
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    session.want([cid_of(b"large")]);
    let _wantlist = raw.accept().await;
    let large = raw::blocks([&vec![0; (2 << 20) + 1][..]]).encode_length_delimited_to_vec();
    let mut stream = raw.open().await;
    // Its length is told; the rest never comes.
    stream.write_all(&large[..4_000]).await.expect("open");
    stream.flush().await.expect("open");
    let mut end = [0];
    assert!(!matches!(stream.read(&mut end).await, Ok(1..)), "it is closed on our side");
    assert_eq!(next(&mut session).await, Event::TooLarge { cid: cid_of(b"large"), from: raw.peer });
    assert_eq!(node.handle.stats().partial_bytes, 0);
}

#[tokio::test]
async fn messages_that_are_too_large_or_garbage_end_in_a_ban() {
    let (node, mut raw) = pair().await;
    for begin in [&[0xff, 0xff, 0xff, 0x7f][..], &[5, 0xff, 0xff, 0xff, 0xff, 0xff], &[2, 0x0f, 0x0f]] {
        let mut stream = raw.open().await;
        stream.write_all(begin).await.expect("open");
        stream.flush().await.expect("open");
    }
    raw.disconnected().await;
    assert_eq!(node.handle.bans().len(), 1);
}

#[tokio::test]
async fn streams_held_open_do_not_starve_answers() {
    let (node, mut raw) = pair().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let opened = futures::future::join_all((0..100).map(|_| raw.open())).await;
        held.extend(opened);
    }
    assert_eq!(held.len(), 2_000);
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    let data = block(1, 300_000);
    session.want([cid_of(&data)]);
    let mut wantlist = raw.accept().await;
    raw::read_soon(&mut wantlist).await;
    raw.send(&raw::blocks([&data[..]])).await;
    collect(&mut session, 1, |_| ()).await;
    assert!(node.handle.stats().inbound_streams <= 256);
}

#[tokio::test]
async fn blocks_in_part_are_bounded() {
    let (node, mut raw) = pair().await;
    let session = node.handle.new_session();
    session.add_peer(raw.peer);
    session.want([cid_of(b"wanted")]);
    raw.accept().await;
    let bytes = raw::blocks([&vec![7; 2 << 20][..]]).encode_length_delimited_to_vec();
    let mut held = Vec::new();
    let mut most = 0;
    for _ in 0..24 {
        let mut stream = raw.open().await;
        // All but the last byte.
        let _ = stream.write_all(&bytes[..bytes.len() - 1]).await;
        let _ = stream.flush().await;
        held.push(stream);
        most = most.max(node.handle.stats().partial_bytes);
    }
    assert!(most > 4 << 20, "it did read: {most}");
    assert!(most <= (16 << 20) + (2 << 20), "{most} bytes are held");
    drop(raw);
    eventually(|| node.handle.stats().partial_bytes == 0 && node.handle.stats().inbound_streams == 0).await;
}

#[tokio::test]
async fn unwanted_blocks_cost_no_memory_and_end_in_a_ban() {
    let (node, mut raw) = pair().await;
    let message = raw::blocks([&vec![1; 1 << 20][..], &vec![2; 1 << 20], &vec![3; 1 << 20]]);
    let bytes = message.encode_length_delimited_to_vec();
    let sent = async {
        let mut stream = raw.open().await;
        for _ in 0..40 {
            if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            assert_eq!(node.handle.stats().partial_bytes, 0);
        }
    };
    sent.await;
    raw.disconnected().await;
    assert!(node.handle.banned(&raw.peer).is_some());
}

#[tokio::test]
async fn a_flood_of_wants_is_bounded() {
    let (node, mut raw) = pair().await;
    let held = block(7, 2_000);
    let cid = node.blocks.insert(held.clone());
    let mut stream = raw.open().await;
    // It reads what it is answered, until the block is there.
    let reader = tokio::spawn(async move {
        let mut answers = raw.accept().await;
        loop {
            let message = raw::read_soon(&mut answers).await;
            if let Some(block) = message.payload.first() {
                assert_eq!(block.data, held);
                return;
            }
        }
    });
    for round in 0..25u32 {
        let cids = (0..4_000u32).map(|i| cid_of(&(round * 4_000 + i).to_le_bytes()).to_bytes());
        stream.write_all(&raw::wants(cids).encode_length_delimited_to_vec()).await.expect("open");
        stream.flush().await.expect("open");
        assert!(node.handle.stats().served_wants <= 2_048);
    }
    stream.write_all(&raw::wants([cid.to_bytes()]).encode_length_delimited_to_vec()).await.expect("open");
    stream.flush().await.expect("open");
    reader.await.expect("the block comes");
    drop(stream);
    eventually(|| node.handle.stats().served_wants == 0).await;
}

#[tokio::test]
async fn a_peer_that_closes_idle_streams_is_served_and_asked() {
    let (node, mut raw) = pair().await;
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    for number in 0..4 {
        // It wants a block of ours, reads the answer, and closes the stream.
        let ours = node.blocks.insert(block(number, 5_000));
        raw.send(&raw::wants([ours.to_bytes()])).await;
        let mut answers = raw.accept().await;
        assert_eq!(raw::read_soon(&mut answers).await.payload.len(), 1);
        answers.close().await.expect("open");
        drop(answers);
        // So it does with our wantlist.
        let data = block(100 + number, 5_000);
        session.want([cid_of(&data)]);
        let mut wantlist = raw.accept().await;
        assert_eq!(raw::wanted(&raw::read_soon(&mut wantlist).await).len(), 1);
        drop(wantlist);
        raw.send(&raw::blocks([&data[..]])).await;
        collect(&mut session, 1, |_| ()).await;
    }
}

#[tokio::test]
async fn a_wantlist_that_was_not_read_is_sent_again() {
    let (node, mut raw) = pair().await;
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    let data = block(1, 5_000);
    session.want([cid_of(&data)]);
    // It closes the stream without reading; the next one it reads.
    drop(raw.accept().await);
    let mut wantlist = raw.accept().await;
    assert_eq!(raw::wanted(&raw::read_soon(&mut wantlist).await)[0].cid, cid_of(&data).to_bytes());
    raw.send(&raw::blocks([&data[..]])).await;
    collect(&mut session, 1, |event| panic!("before it was noticed: {event:?}")).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_holds_little() {
    let (node, mut raw) = pair().await;
    let cids: Vec<_> = (0..100).map(|i| node.blocks.insert(block(i, 1 << 20)).to_bytes()).collect();
    raw.send(&raw::wants(cids)).await;
    let answers = raw.accept().await;
    eventually(|| node.handle.stats().serving_bytes > 0).await;
    // Meanwhile another is served, one block after the other.
    let other = Node::start().await;
    other.connect(&node.address).await;
    let mut session = other.handle.new_session();
    session.add_peer(node.peer);
    for served in 0..SERVED {
        session.want([node.blocks.insert(block(1_000 + served, 10_000))]);
        collect(&mut session, 1, drop).await;
    }
    assert!(node.handle.stats().serving_bytes <= 3 << 20);
    let reads = node.blocks.reads.load(std::sync::atomic::Ordering::Relaxed) - SERVED;
    assert!(reads <= 3, "{reads} blocks were read for a peer that takes none");
    drop((answers, raw));
    eventually(|| node.handle.stats().serving_bytes == 0).await;
}

/// So that no disk is waited for between two messages.
#[tokio::test]
async fn the_next_answers_are_read_while_some_are_written() {
    let (node, mut raw) = pair().await;
    let cids: Vec<_> = (0..10).map(|i| node.blocks.insert(block(i, 1 << 20)).to_bytes()).collect();
    raw.send(&raw::wants(cids)).await;
    let _unread = raw.accept().await;
    eventually(|| node.blocks.reads.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
}

/// One origin is silent, one lies, one closes its streams all the time, and
/// one is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_origins_do_not_keep_a_fetch_from_its_end() {
    let (node, good) = (Node::start().await, Node::start().await);
    let (silent, mut liar, mut closer) =
        (Raw::start(BITSWAP).await, Raw::start(BITSWAP).await, Raw::start(BITSWAP).await);
    for address in [&silent.address, &liar.address, &closer.address, &good.address] {
        node.connect(address).await;
    }
    let datas: Vec<_> = (0..400).map(|i| block(i, 64 << 10)).collect();
    let cids: Vec<_> = datas.iter().map(|data| good.blocks.insert(data.clone())).collect();
    let (liar_peer, closer_peer) = (liar.peer, closer.peer);
    let lies = tokio::spawn(async move {
        let mut wantlist = liar.accept().await;
        while let Ok(message) = raw::read(&mut wantlist).await {
            for entry in raw::wanted(&message) {
                let answer =
                    if entry.want_type == 1 { raw::have(entry.cid) } else { raw::blocks([&b"lie"[..]]) };
                liar.send(&answer).await;
            }
        }
    });
    let closes = tokio::spawn(async move {
        loop {
            let mut wantlist = closer.accept().await;
            let Ok(message) = raw::read(&mut wantlist).await else { continue };
            for entry in raw::wanted(&message) {
                let Some(data) = datas.iter().find(|data| raw::name(data) == entry.cid) else { continue };
                closer.send(&raw::blocks([&data[..]])).await;
            }
        }
    });
    let mut session = node.handle.new_session();
    for peer in [silent.peer, liar_peer, closer_peer, good.peer] {
        session.add_peer(peer);
    }
    let mut banned = 0;
    session.want(cids.iter().copied());
    let blocks = collect(&mut session, cids.len(), |event| {
        banned += usize::from(matches!(event, Event::PeerBanned { .. }));
    })
    .await;
    assert_eq!(blocks.len(), cids.len());
    assert!(banned <= 1);
    lies.abort();
    closes.abort();
}

#[tokio::test]
async fn a_peer_without_bitswap_is_as_good_as_gone() {
    let (node, raw) = (Node::start().await, Raw::start("/other/1.0.0").await);
    node.connect(&raw.address).await;
    let mut session = node.handle.new_session();
    session.add_peer(raw.peer);
    session.want([cid_of(b"anything")]);
    assert_eq!(next(&mut session).await, Event::PeerGone(raw.peer));
    assert_eq!(next(&mut session).await, Event::NoPeers);
}

#[tokio::test]
async fn peers_of_old_versions_are_served_and_asked() {
    for (protocol, bare) in
        [("/ipfs/bitswap/1.1.0", false), ("/ipfs/bitswap/1.0.0", true), ("/ipfs/bitswap", true)]
    {
        let (node, mut raw) = (Node::start().await, Raw::start(protocol).await);
        node.connect(&raw.address).await;
        let data = block(3, 3_000);
        let cid = cid::Cid::new_v0(*cid_of(&data).hash()).expect("SHA-256");
        node.blocks.insert_as(cid, data.clone());
        raw.send(&raw::wants([cid.to_bytes()])).await;
        let message = raw::read_soon(&mut raw.accept().await).await;
        let answered = if bare { &message.blocks[0] } else { &message.payload[0].data };
        assert_eq!(answered[..], data[..], "{protocol}");

        let data = block(4, 3_000);
        let cid = cid::Cid::new_v0(*cid_of(&data).hash()).expect("SHA-256");
        let mut session = node.handle.new_session();
        session.add_peer(raw.peer);
        session.want([cid]);
        let entries = raw::wanted(&raw::read_soon(&mut raw.accept().await).await);
        assert_eq!((entries[0].want_type, entries[0].send_dont_have), (0, false));
        let mut answer = Message { blocks: vec![data.to_vec()], ..Message::default() };
        if !bare {
            answer = raw::blocks([&data[..]]);
        }
        raw.send(&answer).await;
        assert!(
            matches!(next(&mut session).await, Event::Block { cid: got, .. } if got == cid),
            "{protocol}"
        );
    }
}
