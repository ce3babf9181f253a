//! The gateway of a whole node: bound by its settings, over what the node
//! holds, with the denylist of its data folder, ended with the node.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use pinfold_blockstore::Block;
use pinfold_core::{
    content::{self, Cid},
    hash,
};
use pinfold_node::{Node, Settings};

/// A raw block and its CID.
fn block(bytes: &'static [u8]) -> (Cid, Block) {
    let cid = Cid::new_v1(0x55, hash::multihash(hash::SHA2_256, bytes).expect("SHA-256"));
    let multihash = *content::block_cid(&cid).expect("a block").hash();
    (cid, Block::verify(multihash, bytes.into()).expect("the right hash"))
}

/// The status line and the body of an answer.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_what_it_holds_and_denies_what_it_must() {
    let dir = tempfile::tempdir().expect("a folder");
    let (open, open_block) = block(b"open");
    let (denied, denied_block) = block(b"denied");
    let list = format!("{{\"version\":1,\"rules\":\"/ipfs/{denied}\"}}");
    std::fs::write(dir.path().join("denylist.json"), list).expect("a file");
    // Nobody answers there: a node needs no service to serve what it holds.
    let service = "http://127.0.0.1:9/".parse().expect("a URL");
    let mut settings = Settings::new(dir.path().to_owned(), service);
    settings.gateway = Some("127.0.0.1:0".parse().expect("an address"));
    settings.network.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr")];
    let node = Node::start(settings).await.expect("a node");
    node.held().store().put(&[open_block, denied_block]).expect("room");
    let address = node.gateway_address().expect("a gateway");
    let asked = tokio::task::spawn_blocking(move || {
        [
            get(address, &format!("/ipfs/{open}")),
            get(address, &format!("/ipfs/{denied}?format=raw")),
            get(address, &format!("/ipfs/{}", block(b"absent").0)),
        ]
    });
    let [open, denied, missing] = asked.await.expect("answers");
    assert_eq!(open, ("HTTP/1.1 200 OK".into(), "open".into()));
    assert_eq!(denied.0, "HTTP/1.1 410 Gone");
    assert_eq!(missing.0, "HTTP/1.1 404 Not Found");
    node.shutdown().await;
    assert!(TcpStream::connect(address).is_err());
}
