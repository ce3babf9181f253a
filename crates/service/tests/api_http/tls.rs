//! TLS on the API's listener, with certificates from files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use pinfold_service::{Service, Settings, StartError, Timeouts, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    server::{Backend, Server, cid, settings},
    socket::exchange,
};

const NAME: &str = "pins.example.org";

struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate with its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    fn issue(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority alone, and finds the service under
    /// the certificate's name.
    fn client(&self, address: SocketAddr) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = reqwest::Certificate::from_pem(self.certificate.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([root])
            .tls_info(true)
            .no_proxy()
            .resolve(NAME, address)
            .build()
            .unwrap()
    }
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self { certificate: folder.join("chain.pem"), key: folder.join("key.pem") }
    }

    fn write(&self, pair: &Pair) {
        std::fs::write(&self.certificate, &pair.certificate).unwrap();
        std::fs::write(&self.key, &pair.key).unwrap();
    }

    fn settings(&self) -> Settings {
        let tls = Tls::Files { certificate: self.certificate.clone(), key: self.key.clone() };
        Settings { tls: Some(tls), ..settings() }
    }
}

async fn start(server: &Server, settings: Settings) -> Result<Service, StartError> {
    Service::start(settings, server.database.clone(), server.keyring.clone()).await
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("https://{NAME}:{}{path}", address.port())
}

/// The certificate that a new connection is shown.
async fn shown(authority: &Authority, address: SocketAddr) -> Vec<u8> {
    let answer = authority.client(address).get(url(address, "/healthz")).send().await.unwrap();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    info.peer_certificate().unwrap().to_vec()
}

#[tokio::test]
async fn a_pin_over_tls_and_nothing_without() {
    let (server, authority) = (Server::start(Backend::Sqlite).await, Authority::new());
    let files = Files::in_folder(server.folder.path());
    files.write(&authority.issue());
    let service = start(&server, files.settings()).await.unwrap();
    let address = service.api_address();
    let request = authority.client(address).post(url(address, "/pins")).bearer_auth(&server.token);
    let answer = request.body(json!({ "cid": cid(1) }).to_string()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let stranger = Authority::new().client(address).get(url(address, "/healthz")).send().await;
    assert!(stranger.is_err(), "another authority's certificate");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // It may end by a reset.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    service.shutdown();
    service.join().await;
}

#[tokio::test]
async fn new_files_are_in_force_without_a_restart() {
    let (server, authority) = (Server::start(Backend::Sqlite).await, Authority::new());
    let files = Files::in_folder(server.folder.path());
    files.write(&authority.issue());
    let service = start(&server, files.settings()).await.unwrap();
    let address = service.api_address();
    let kept = authority.client(address);
    assert_eq!(kept.get(url(address, "/healthz")).send().await.unwrap().text().await.unwrap(), "ok\n");
    let old = shown(&authority, address).await;
    let new = authority.issue();
    // A renewal in two steps: the old pair stays in force between them.
    std::fs::write(&files.certificate, &new.certificate).unwrap();
    assert_eq!(shown(&authority, address).await, old);
    std::fs::write(&files.key, &new.key).unwrap();
    let renewed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while shown(&authority, address).await == old {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("the new files were not read");
    // Whatever is written then, the service goes on.
    std::fs::write(&files.key, "nonsense").unwrap();
    assert_ne!(shown(&authority, address).await, old);
    assert_eq!(kept.get(url(address, "/healthz")).send().await.unwrap().text().await.unwrap(), "ok\n");
    service.shutdown();
    service.join().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let (server, authority) = (Server::start(Backend::Sqlite).await, Authority::new());
    let files = Files::in_folder(server.folder.path());
    let (one, two) = (authority.issue(), authority.issue());
    for (certificate, key, named) in [
        (None, None, "chain.pem"),
        (Some(&one.certificate), None, "key.pem"),
        (Some(&one.key), Some(&one.key), "holds no certificate"),
        (Some(&one.certificate), Some(&one.certificate), "holds no private key"),
        (Some(&one.certificate), Some(&two.key), "cannot be used with the key"),
    ] {
        for (path, text) in [(&files.certificate, certificate), (&files.key, key)] {
            let _ = std::fs::remove_file(path);
            text.iter().for_each(|text| std::fs::write(path, text).unwrap());
        }
        let error = start(&server, files.settings()).await.unwrap_err();
        assert!(matches!(error, StartError::Tls(_)) && error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_handshake_that_stands_still_ends() {
    let (server, authority) = (Server::start(Backend::Sqlite).await, Authority::new());
    let files = Files::in_folder(server.folder.path());
    files.write(&authority.issue());
    let timeouts = Timeouts { handshake: Duration::from_millis(200), ..Timeouts::default() };
    let service = start(&server, Settings { timeouts, ..files.settings() }).await.unwrap();
    let mut silent = TcpStream::connect(service.api_address()).await.unwrap();
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), silent.read_to_end(&mut nothing)).await;
    assert!(ended.is_ok() && nothing.is_empty(), "{ended:?} {nothing:?}");
    service.shutdown();
    service.join().await;
}

#[tokio::test]
async fn a_node_of_the_same_process_needs_no_tls() {
    let (server, authority) = (Server::start(Backend::Sqlite).await, Authority::new());
    let files = Files::in_folder(server.folder.path());
    files.write(&authority.issue());
    let node_api = Some("127.0.0.1:0".parse().unwrap());
    let service = start(&server, Settings { node_api, ..files.settings() }).await.unwrap();
    assert_ne!(service.node_api_address(), service.api_address());
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        exchange(service.node_api_address(), &request).await
    };
    let answer = get("/node/v1/service").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(service.service_id()), "{answer}");
    for path in ["/pins", "/api/v1/account", "/openapi.json", "/"] {
        assert!(get(path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    service.shutdown();
    service.join().await;
}
