//! Missing blocks, denied content, clients and DAGs made to hurt.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use parking_lot::Mutex;
use pinfold_bitswap::Blocks as _;
use pinfold_core::{
    content::{self, Cid},
    unixfs::murmur3_x64_64,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::subscriber::DefaultGuard;

use super::{
    PLACES, Served, dag,
    dag::{Dag, PB},
    sections,
};
use crate::{
    denied::Denied,
    gateway::source::{Source, Unserved},
    serve::Held,
};

#[tokio::test]
async fn an_incomplete_answer_is_broken_off() {
    let mut dag = Dag::default();
    let (file, chunks) = dag.file(&dag::bytes(600_000), 100_000);
    let root = dag.dir(&[("file.bin", file)]);
    dag.lose(&chunks[3]);
    let served = Served::new(&dag).await;
    let car = served.get(&format!("/ipfs/{root}?format=car")).await;
    assert_eq!((car.status, car.is_whole), (200, false));
    // What came before is there, so that a client may verify it and go on.
    assert_eq!(sections(&car.body), [&[root, file][..], &chunks[..3]].concat());
    let read = served.get(&format!("/ipfs/{root}/file.bin")).await;
    assert_eq!((read.status, read.is_whole, read.body.len()), (200, false, 300_000));
    // Where nothing of it can be sent there is a status.
    let range = [("Range", "bytes=300000-300010")];
    assert_eq!(served.get_with(&format!("/ipfs/{root}/file.bin"), &range).await.status, 404);
    assert_eq!(served.get(&format!("/ipfs/{}?format=car", chunks[3])).await.status, 404);
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Logs until the guard is dropped.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines_with(&self, word: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock()).lines().filter(|line| line.contains(word)).count()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_denied_and_asked_for_is_logged() {
    let mut dag = Dag::default();
    let (secret, open) = (dag.leaf(*b"forbidden"), dag.leaf(*b"open"));
    let absent = Dag::default().leaf(*b"absent");
    let rules = format!("/ipfs/{secret}\n/ipfs/{absent}\n");
    // Where another thread, which has no log, comes first to a place that logs,
    // that place stays silent.
    Denied::default().refused(&secret, "", "test");
    let (log, _guard) = Log::start();
    let held = async || {
        let served = Served::new(&dag).await;
        served.deny(1, &rules);
        let held = Held::new(served.store.clone(), served.denied.clone());
        (served, held)
    };
    // As the gateway asks, on whose threads nobody listens to the log.
    let (_served, held_there) = held().await;
    let source = Source::new(held_there);
    assert!(source.block(&open).is_ok());
    assert_eq!(log.lines_with("way=\"gateway\""), 0);
    for _ in 0..20 {
        assert!(matches!(source.block(&secret), Err(Unserved::Denied(_))));
    }
    let lines = log.lines_with("way=\"gateway\"");
    assert_eq!(log.lines_with(&secret.to_string()), lines);
    assert!((1..10).contains(&lines), "strangers wrote {lines} lines by asking 20 times at once");

    let (_served, held) = held().await;
    let size = |cid| held.size(&PeerId::random(), &content::block_cid(cid).expect("a block"));
    // Peers ask everybody for what they want: only what is held is refused.
    assert_eq!((size(&absent), log.lines_with("way=\"bitswap\"")), (None, 0));
    assert_eq!((size(&open), log.lines_with("way=\"bitswap\"")), (Some(4), 0));
    assert_eq!((size(&secret), log.lines_with("way=\"bitswap\"")), (None, 1));
}

#[tokio::test]
async fn denied_content_is_gone_in_every_form() {
    let mut dag = Dag::default();
    let secret = dag.leaf(*b"forbidden");
    let index = dag.leaf(*b"index");
    let sub = dag.dir(&[("secret.txt", secret), ("index.html", index)]);
    let root = dag.dir(&[("sub", sub), ("open.txt", index)]);
    let served = Served::new(&dag).await;
    let check = async |path: &str, status: u16| {
        for query in ["", "?format=raw", "?format=car"] {
            for method in ["GET", "HEAD"] {
                let reply = served.send(method, &format!("/ipfs/{path}{query}"), &[]).await;
                assert_eq!(reply.status, status, "{method} {path}{query}");
            }
        }
    };
    check(&format!("{root}/sub/secret.txt"), 200).await;
    served.deny(1, &format!("/ipfs/{secret}\n"));
    check(&secret.to_string(), 410).await;
    check(&format!("{root}/sub/secret.txt"), 410).await;
    check(&format!("{root}/open.txt"), 200).await;
    let walk = served.get(&format!("/ipfs/{root}?format=car")).await;
    assert!(!walk.is_whole && !walk.body.windows(9).any(|part| part == b"forbidden"));

    served.deny(2, &format!("/ipfs/{root}/sub/*\n"));
    check(&format!("{root}/sub/secret.txt"), 410).await;
    check(&format!("{root}/sub//%73ecret.txt"), 410).await;
    check(&format!("{root}/open.txt"), 200).await;
    check(&secret.to_string(), 200).await;
    served.deny(3, &format!("/ipfs/{root}/sub/index.html\n"));
    assert_eq!(served.get(&format!("/ipfs/{root}/sub/")).await.status, 410);
    served.deny(4, "");
    check(&format!("{root}/sub/secret.txt"), 200).await;
    // A rule about a directory holds wherever that directory is.
    served.deny(5, &format!("/ipfs/{sub}/secret.txt\n"));
    check(&format!("{root}/sub/secret.txt"), 410).await;
    check(&format!("{sub}/secret.txt"), 410).await;
    // Denied and not held look alike.
    let absent = Dag::default().leaf(*b"absent").to_string();
    check(&absent, 404).await;
    served.deny(6, &format!("/ipfs/{absent}\n"));
    check(&absent, 410).await;
}

#[tokio::test]
async fn a_car_never_contains_what_a_path_rule_denies() {
    let mut dag = Dag::default();
    let secret = dag.leaf(*b"forbidden");
    let open = dag.leaf(*b"open");
    let sub = dag.dir(&[("secret.txt", secret), ("open.txt", open)]);
    let many: Vec<_> = (0..300).map(|n| (format!("name-{n}"), open)).collect();
    let (shards, _) = dag.shards(256, &many);
    let list = dag.cbor(1, &[open, secret]);
    let root = dag.dir(&[("list", list), ("shards", shards), ("sub", sub)]);
    let above = dag.dir(&[("root", root)]);
    let served = Served::new(&dag).await;
    let get = async |path: String| served.get(&format!("/ipfs/{path}?format=car")).await;
    let mut version = 0;
    let mut deny = |rules: String| {
        version += 1;
        served.deny(version, &rules);
    };
    for rule in [
        format!("/ipfs/{root}/sub/secret.txt"),
        format!("/ipfs/{root}/sub/sec*"),
        format!("/ipfs/{root}/su*"),
        format!("/ipfs/{root}/list/links/1"),
        format!("/ipfs/{root}/shards/name-7"),
        format!("/ipfs/{root}/shards/name-29*"),
    ] {
        deny(rule.clone());
        for query in ["", "&dag-scope=all", "&car-dups=y"] {
            let reply = served.get(&format!("/ipfs/{root}?format=car{query}")).await;
            assert_eq!(reply.status, 410, "{rule} {query}");
        }
        // Met in mid-stream it breaks the answer off.
        let walk = get(above.to_string()).await;
        assert!(!walk.is_whole && !walk.body.windows(9).any(|part| part == b"forbidden"), "{rule}");
        // What is not sent is not refused.
        for query in ["&dag-scope=entity", "&dag-scope=block"] {
            let reply = served.get(&format!("/ipfs/{root}?format=car{query}")).await;
            assert_eq!((reply.status, reply.is_whole), (200, true), "{rule} {query}");
        }
        assert_eq!(get(secret.to_string()).await.status, 200, "{rule}");
    }
    deny(format!("/ipfs/{above}/root/sub/secret.txt"));
    assert_eq!(get(format!("{above}/root")).await.status, 410, "in what is left of the way");
    assert_eq!(get(format!("{above}/root/sub")).await.status, 410);
    assert!(get(format!("{above}/root/shards")).await.is_whole, "beside it");
    assert!(get(root.to_string()).await.is_whole, "without the way that the rule is about");
    deny(format!("/ipfs/{root}/sub/sec*\n!/ipfs/{root}/sub/secret.txt\n/ipfs/{root}/sub/none"));
    assert!(get(root.to_string()).await.is_whole, "allowed again, and nothing there");
}

#[tokio::test]
async fn files_that_lie_about_their_size_are_broken_off() {
    let mut dag = Dag::default();
    let leaf = dag.leaf(vec![1; 1_000]);
    let more = dag.parts(&[(leaf, 1_000), (leaf, 2_000)]);
    let huge = dag.parts(&[(leaf, 1_000), (leaf, u64::MAX - 1_000)]);
    let too_huge = dag.parts(&[(leaf, u64::MAX / 2 + 1), (leaf, 1)]);
    let served = Served::new(&dag).await;
    for cid in [more, huge] {
        let reply = served.get(&format!("/ipfs/{cid}?filename=a.bin")).await;
        assert_eq!((reply.status, reply.is_whole, reply.body.len()), (200, false, 1_000), "{cid}");
    }
    assert_eq!(served.get(&format!("/ipfs/{too_huge}?filename=a.bin")).await.status, 404);
    let end = [("Range", "bytes=-1")];
    assert_eq!(served.get_with(&format!("/ipfs/{huge}?filename=a.bin"), &end).await.status, 404);
}

#[tokio::test]
async fn blocks_that_are_no_files_are_told_from_those_that_are() {
    let mut dag = Dag::default();
    let garbage = dag.add(PB, *b"\xff\xff\xff");
    let bare = dag.add(PB, Vec::new());
    let bad_shard = dag.add(PB, dag::shard_node(7, &[]));
    let unknown = dag.add(0x78, *b"?");
    let root = dag.dir(&[("garbage", garbage), ("bare", bare)]);
    let served = Served::new(&dag).await;
    for (cid, status) in [(garbage, 404), (bare, 404), (bad_shard, 404), (unknown, 406)] {
        assert_eq!(served.get(&format!("/ipfs/{cid}/")).await.status, status, "{cid}");
        assert_eq!(served.get(&format!("/ipfs/{cid}/name")).await.status, 404, "{cid}");
        assert_eq!(served.get(&format!("/ipfs/{cid}?format=raw")).await.status, 200, "{cid}");
        let entity = served.get(&format!("/ipfs/{cid}?format=car&dag-scope=entity")).await;
        assert_eq!(entity.car(), [cid]);
    }
    let car = served.get(&format!("/ipfs/{root}?format=car")).await;
    assert!(!car.is_whole);
}

#[tokio::test]
async fn shards_deeper_than_their_hash_end() {
    let mut dag = Dag::default();
    let leaf = dag.leaf(*b"x");
    let hash = murmur3_x64_64(b"name");
    // Thirty levels below one another, each in the bucket of the name.
    let mut below = leaf;
    for level in (0..30_u32).rev() {
        let bucket = hash.rotate_left(level * 3) >> 61;
        below = dag.add(PB, dag::shard_node(8, &[(format!("{bucket:X}"), below)]));
    }
    let served = Served::new(&dag).await;
    assert_eq!(served.get(&format!("/ipfs/{below}/name")).await.status, 404);
    // The page finds the leaf where a shard should be.
    assert_eq!(served.get(&format!("/ipfs/{below}/")).await.status, 404);
}

#[tokio::test]
async fn pages_of_huge_directories_are_cut() {
    let mut dag = Dag::default();
    let leaf = dag.leaf(*b"x");
    let names: Vec<String> = (0..12_000).map(|number| format!("name {number}")).collect();
    let entries: Vec<(&str, Cid)> = names.iter().map(|name| (name.as_str(), leaf)).collect();
    let flat = dag.dir(&entries);
    let owned: Vec<(String, Cid)> = names.iter().map(|name| (name.clone(), leaf)).collect();
    let (sharded, _) = dag.shards(256, &owned);
    let served = Served::new(&dag).await;
    for root in [flat, sharded] {
        let page = served.get(&format!("/ipfs/{root}/")).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.text().matches("<tr>").count(), 10_000);
        assert!(page.text().contains("more than these 10000 entries"));
        assert_eq!(served.get(&format!("/ipfs/{root}/name%2011999")).await.text(), "x");
    }
}

#[tokio::test]
async fn inline_blocks_are_walked_and_never_sent() {
    let mut dag = Dag::default();
    let leaf = dag.leaf(*b"leaf");
    let inner = dag::identity(PB, &dag::node(&dag::number(1, 1), &[("leaf".into(), leaf)]));
    let outer = dag.dir(&[("inner", inner)]);
    let many = dag.cbor(1, &vec![inner; 20_000]);
    let served = Served::new(&dag).await;
    let car = served.get(&format!("/ipfs/{outer}?format=car")).await;
    assert_eq!(car.car(), [outer, leaf]);
    let path = served.get(&format!("/ipfs/{outer}/inner/leaf?format=car&car-dups=y")).await;
    assert_eq!(path.car(), [outer, leaf]);
    let car = served.get(&format!("/ipfs/{many}?format=car")).await;
    assert_eq!(car.car(), [many, leaf]);
}

#[tokio::test]
async fn hostile_heads_are_refused() {
    let served = Served::new(&Dag::default()).await;
    let long = format!("/ipfs/bafkqaaa/{}", "a".repeat(100 << 10));
    let status = served.get(&long).await.status;
    assert!(status == 414 || status == 431, "{status}");
    let many: Vec<(&str, &str)> = vec![("X-Many", "x"); 100];
    assert_eq!(served.get_with("/ipfs/bafkqaaa", &many).await.status, 431);
    let names = format!("/ipfs/bafkqaaa{}", "/a".repeat(129));
    assert_eq!(served.get(&names).await.status, 400);
    let ranges = format!("bytes={}", "0-0,".repeat(5_000));
    let whole = served.get_with("/ipfs/bafkqabtimvwgy3yk", &[("Range", &ranges)]).await;
    assert_eq!((whole.status, whole.text()), (206, "h"));
    assert_eq!(served.get("/ipfs/bafkqaaa/..%2f..%2fetc").await.status, 404);
}

#[tokio::test]
async fn places_are_bounded_and_given_back() {
    let mut dag = Dag::default();
    let (file, _) = dag.file(&dag::bytes(1 << 20), 1 << 18);
    let big = dag.parts(&[(file, 1 << 20); 64]);
    let served = Served::new(&dag).await;
    let request = format!("GET /ipfs/{big}?filename=a.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut slow = Vec::new();
    for _ in 0..PLACES {
        let mut socket = served.connect().await;
        socket.write_all(request.as_bytes()).await.expect("it listens");
        // The head is there: the place is taken, and the rest is not read.
        let mut first = [0; 15];
        socket.read_exact(&mut first).await.expect("a head");
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        slow.push(socket);
    }
    let busy = served.get("/ipfs/bafkqaaa").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, "1"));
    drop(slow);
    let free = async {
        while served.get("/ipfs/bafkqaaa").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free).await.expect("places are given back");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_listener() {
    let served = Served::new(&Dag::default()).await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET /ipfs/bafkqaaa HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it listens");
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.expect("an answer");
    let ended = tokio::time::timeout(Duration::from_secs(10), served.gateway.shutdown());
    ended.await.expect("it ends");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("it is closed");
    assert!(tokio::net::TcpStream::connect(served.gateway.address()).await.is_err());
    served.gateway.shutdown().await;
}
