//! WebSocket over TLS: a node behind a reverse proxy that ends TLS, as peers
//! on the web are run, with a certificate of an authority that the test makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_support;

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use cid::Cid;
use futures_rustls::TlsAcceptor;
use libp2p::multiaddr::Protocol;
use multihash_codetable::{Code, MultihashDigest};
use net_support::{Memory, PATIENCE, Stub, config, gone, serve, start};
use pinfold_bitswap::Event;
use pinfold_node::net::{DialError, Network, dns::Resolver};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// The name that the server's certificate bears, and one that it does not;
/// both resolve to loopback.
const NAME: &str = "origin.test";
const OTHER_NAME: &str = "other.test";

/// A certificate authority.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    /// What trusts nobody else.
    fn trusted(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        Arc::new(roots)
    }

    /// TLS for a server with the name [`NAME`].
    fn server(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            );
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

/// Ends TLS and passes on what is inside, until the test ends. Returns the
/// port that it listens on.
async fn proxy(tls: TlsAcceptor, inside: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                // A client that does not like the certificate goes away.
                let Ok(outer) = tls.accept(socket.compat()).await else { return };
                let mut inner = TcpStream::connect((Ipv4Addr::LOCALHOST, inside)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer.compat(), &mut inner).await;
            });
        }
    });
    port
}

fn tcp_port(network: &Network) -> u16 {
    let port = network.listen_addresses()[0].iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    port.unwrap()
}

fn block() -> (Cid, Bytes) {
    let data = Bytes::from(vec![7; 300_000]);
    (Cid::new_v1(0x55, Code::Sha2_256.digest(&data)), data)
}

/// A node that serves [`block`] over WebSocket, and the port of TLS before it.
async fn origin(authority: &Authority) -> (Network, u16) {
    let mut settings = config();
    settings.listen = vec!["/ip4/127.0.0.1/tcp/0/ws".parse().unwrap()];
    let origin = serve(settings, Memory(Arc::new(HashMap::from([block()])))).await;
    let port = proxy(authority.server(), tcp_port(&origin)).await;
    (origin, port)
}

/// A node for which both names lead to loopback.
async fn client(authorities: Option<Arc<RootCertStore>>) -> Network {
    let stub = Stub::default();
    for name in [NAME, OTHER_NAME] {
        stub.address(name, &["127.0.0.1"]);
    }
    let mut settings = config();
    settings.resolver = Some(Resolver::new(stub));
    settings.authorities = authorities;
    start(settings).await
}

async fn dial(client: &Network, origin: &Network, address: String) -> Result<(), DialError> {
    let dialled = client.dial(Some(origin.peer_id()), vec![address.parse().unwrap()], true).await;
    dialled.map(|peer| assert_eq!(peer, origin.peer_id()))
}

async fn fetch(client: &Network, origin: &Network) {
    let (cid, expected) = block();
    let mut session = client.bitswap().new_session();
    session.add_peer(origin.peer_id());
    assert_eq!(session.want([cid]), []);
    let fetched = async {
        loop {
            if let Some(Event::Block { data, .. }) = session.next().await {
                return data;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, fetched).await.expect("the block comes"), expected);
}

#[tokio::test]
async fn a_block_comes_over_websocket_in_tls() {
    let authority = Authority::new("the test");
    let (origin, port) = origin(&authority).await;
    let client = client(Some(authority.trusted())).await;
    for address in [
        format!("/dns4/{NAME}/tcp/{port}/tls/ws"),
        format!("/dns4/{NAME}/tcp/{port}/wss"),
        // The name of the certificate is another than the one that is dialled.
        format!("/dns/{OTHER_NAME}/tcp/{port}/tls/sni/{NAME}/ws"),
        format!("/ip4/127.0.0.1/tcp/{port}/tls/sni/{NAME}/ws"),
    ] {
        assert_eq!(dial(&client, &origin, address.clone()).await, Ok(()), "{address}");
        fetch(&client, &origin).await;
        client.disconnect(origin.peer_id());
        gone(&client, &origin).await;
    }
    client.shutdown().await;
    origin.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_nobody_trusted_vouches_for_is_refused() {
    let authority = Authority::new("the test");
    let (origin, port) = origin(&authority).await;
    let strangers = Authority::new("strangers").trusted();
    // The last one trusts whom the system trusts.
    for authorities in [Some(strangers), None] {
        let client = client(authorities).await;
        for address in [format!("/dns4/{NAME}/tcp/{port}/tls/ws"), format!("/dns4/{NAME}/tcp/{port}/wss")] {
            let refused = dial(&client, &origin, address.clone()).await.unwrap_err();
            let DialError::Unreachable(why) = &refused else { panic!("{address}: {refused:?}") };
            assert!(why.contains("UnknownIssuer"), "{address}: {why}");
        }
        client.shutdown().await;
    }
    assert!(origin.connected().is_empty());
    origin.shutdown().await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new("the test");
    let (origin, port) = origin(&authority).await;
    let client = client(Some(authority.trusted())).await;
    for address in [
        format!("/dns4/{OTHER_NAME}/tcp/{port}/tls/ws"),
        format!("/dns4/{NAME}/tcp/{port}/tls/sni/{OTHER_NAME}/ws"),
        format!("/ip4/127.0.0.1/tcp/{port}/tls/ws"),
    ] {
        let refused = dial(&client, &origin, address.clone()).await.unwrap_err();
        let DialError::Unreachable(why) = &refused else { panic!("{address}: {refused:?}") };
        assert!(why.contains("certificate"), "{address}: {why}");
    }
    assert!(origin.connected().is_empty());
    client.shutdown().await;
    origin.shutdown().await;
}
