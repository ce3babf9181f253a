//! The gateway over real sockets, with DAGs built by hand.

mod dag;
mod hostile;
mod paths;
mod trustless;

use std::collections::HashMap;

use pinfold_blockstore::{Block, Options, Store};
use pinfold_core::content::{self, Cid};
use pinfold_node_api as api;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Gateway, Settings};
use crate::{denied::Denied, serve::Held};
use dag::Dag;

/// Requests at once: few, so that a test can take them all.
const PLACES: usize = 4;

/// A gateway over a store of its own.
struct Served {
    gateway: Gateway,
    store: Store,
    denied: Denied,
    dir: tempfile::TempDir,
}

/// What came back.
struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
    /// Whether the body ended as it said that it would.
    is_whole: bool,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The CIDs of a CAR, each of which was compared with its block.
    fn car(&self) -> Vec<Cid> {
        assert!(self.is_whole, "the CAR was broken off");
        sections(&self.body)
    }
}

/// The CIDs of a CAR's sections, as far as they are whole.
fn sections(mut bytes: &[u8]) -> Vec<Cid> {
    let mut cids = Vec::new();
    let header = varint(&mut bytes).expect("a header");
    bytes = &bytes[header..];
    while let Some(length) = varint(&mut bytes) {
        let Some((mut section, rest)) = bytes.split_at_checked(length) else { break };
        let cid = Cid::read_bytes(&mut section).expect("a CID");
        pinfold_core::hash::verify(cid.hash(), section).expect("a block of that CID");
        cids.push(cid);
        bytes = rest;
    }
    cids
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Served {
    async fn new(dag: &Dag) -> Self {
        Self::at(dag, None).await
    }

    async fn at(dag: &Dag, domain: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path().join("blocks"), Options::default()).expect("a store");
        let denied = Denied::default();
        let held = Held::new(store.clone(), denied.clone());
        let address = "127.0.0.1:0".parse().expect("an address");
        let settings = Settings { address, domain: domain.map(str::to_owned) };
        let gateway = Gateway::with_places(settings, held, PLACES).await.expect("a port");
        let served = Self { gateway, store, denied, dir };
        served.put(dag);
        served
    }

    fn put(&self, dag: &Dag) {
        let blocks = dag.blocks.iter().filter_map(|(cid, bytes)| {
            let hash = *content::block_cid(cid)?.hash();
            Some(Block::verify(hash, bytes.clone().into()).expect("the right hash"))
        });
        self.store.put(&blocks.collect::<Vec<_>>()).expect("room");
    }

    fn deny(&self, version: i64, rules: &str) {
        let list = api::Denylist { version, rules: rules.to_owned() };
        self.denied.update(self.dir.path(), &list).expect("a denylist");
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers).await
    }

    async fn head(&self, path: &str) -> Reply {
        self.send("HEAD", path, &[]).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: 127.0.0.1\r\n" };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
        let mut socket = self.connect().await;
        socket.write_all(request.as_bytes()).await.expect("it listens");
        let mut bytes = Vec::new();
        // An error ends the answer too: it is not whole then.
        let _ = socket.read_to_end(&mut bytes).await;
        reply(&bytes, method == "HEAD")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.gateway.address()).await.expect("it listens")
    }
}

fn reply(bytes: &[u8], is_head: bool) -> Reply {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&bytes[..end]).expect("text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    let (body, is_whole) =
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") && !is_head {
            unchunk(rest)
        } else {
            let length = headers.get("content-length").and_then(|length| length.parse::<usize>().ok());
            (rest.to_vec(), is_head || length.is_none_or(|length| length == rest.len()))
        };
    Reply { status: status.parse().expect("a status"), headers, body, is_whole }
}

fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|part| part == b"\r\n") else { return (body, false) };
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk's size");
        if size == 0 {
            return (body, true);
        }
        let rest = &bytes[end + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        let Some(next) = rest.get(size + 2..) else { return (body, false) };
        bytes = next;
    }
}
