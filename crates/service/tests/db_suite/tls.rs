//! TLS to a real PostgreSQL, which refuses whatever is not encrypted.

use std::{net::TcpListener, path::PathBuf, process::Child};

use pinfold_service::db::{Database, Location, Settings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{cluster, world::*};

/// Who may connect: over TCP with TLS alone.
const WHO: &str = "hostssl all all 127.0.0.1/32 trust\nlocal all all trust\n";

struct Server {
    port: u16,
    /// The URL of its socket.
    socket: String,
    /// The certificates that its own leads to.
    roots: PathBuf,
    /// Certificates that it does not lead to.
    other_roots: PathBuf,
    _folder: TempDir,
    _keeper: Child,
}

struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }
}

impl Server {
    async fn start() -> Self {
        let files = tokio::task::spawn_blocking(cluster::Files::make).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [roots, other_roots] = ["roots.pem", "other.pem"].map(|name| folder.path().join(name));
        let (authority, other) = (Authority::new(), Authority::new());
        std::fs::write(&roots, authority.certificate.pem()).unwrap();
        std::fs::write(&other_roots, other.certificate.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = own.signed_by(&key, &authority.certificate, &authority.key).unwrap();
        for (name, text) in [
            ("server.pem", own.pem()),
            ("server.key", key.serialize_pem()),
            ("data/pg_hba.conf", WHO.to_owned()),
        ] {
            let path = files.folder.join(name);
            std::fs::write(&path, text).unwrap();
            files.own(&path);
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = files.folder.display();
        let keeper = files.keep(&format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on \
             -c ssl_cert_file='{at}/server.pem' -c ssl_key_file='{at}/server.key'"
        ));
        let socket = format!("{}:{port}/postgres", files.base());
        let (client, connection) = cluster::connect(&socket).await;
        drop(client);
        connection.await.unwrap();
        Self { port, socket, roots, other_roots, _folder: folder, _keeper: keeper }
    }

    fn url(&self, host: &str, query: &str) -> String {
        format!("postgres://pinfold@{host}:{}/postgres?{query}", self.port)
    }

    async fn open(&self, host: &str, query: &str) -> Result<Database, pinfold_service::db::Error> {
        Database::open(Settings { pool: 2, ..Settings::new(Location::Postgres(self.url(host, query))) }).await
    }

    /// Whether one of our connections over TCP waits for notices.
    async fn is_listened_to(&self) -> bool {
        let (client, connection) = cluster::connect(&self.socket).await;
        tokio::spawn(connection);
        let sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pinfold'
            AND client_addr IS NOT NULL AND query LIKE 'LISTEN %'";
        client.query_opt(sql, &[]).await.unwrap().is_some()
    }

    /// How many of our connections over TCP there are, and how many of them are
    /// encrypted.
    async fn connections(&self) -> (i64, i64) {
        let (client, connection) = cluster::connect(&self.socket).await;
        tokio::spawn(connection);
        let sql = "SELECT COUNT(*), COUNT(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity
            USING (pid) WHERE application_name = 'pinfold' AND client_addr IS NOT NULL";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_spoken_to_as_the_url_demands() {
    let server = Server::start().await;
    let (roots, other) = (server.roots.display(), server.other_roots.display());
    for (host, query, works) in [
        ("localhost", "sslmode=disable".to_owned(), false),
        ("localhost", String::new(), true),
        ("localhost", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={roots}"), true),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), false),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={roots}"), true),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={other}"), false),
        ("localhost", "sslmode=verify-ca".to_owned(), false),
        ("localhost", format!("sslmode=verify-full&sslrootcert={roots}"), true),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={roots}"), false),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), false),
        ("localhost", "sslmode=verify-full".to_owned(), false),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), false),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem".to_owned(), false),
    ] {
        let opened = server.open(host, &query).await;
        assert_eq!(opened.is_ok(), works, "{host} {query}: {:?}", opened.err());
        if let Ok(database) = opened {
            database.health().await.unwrap();
            let (all, encrypted) = server.connections().await;
            assert!(all > 0 && all == encrypted, "{host} {query}: {encrypted} of {all} connections");
            database.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_other_processes_are_heard_over_tls_to_postgres() {
    let server = Server::start().await;
    let query = format!("sslmode=verify-full&sslrootcert={}", server.roots.display());
    let world = World::at(Location::Postgres(server.url("localhost", &query)), None);
    let (one, _node, ann) = world.with_node(1 << 30).await;
    one.add_pin(pin(ann.id, 1)).await.unwrap();
    let listening = async { while !server.is_listened_to().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), listening).await.expect("nobody listens");
    let (all, encrypted) = server.connections().await;
    assert!(all >= 2 && all == encrypted, "{encrypted} of {all} connections");
    one.close().await;
}
