//! TLS on the API's listener: certificate files that are read again whenever
//! they change ([`files`]), or certificates that an ACME service such as Let's
//! Encrypt issues and renews ([`acme`]).
//!
//! Both give a resolver that a handshake asks for the certificate in force, so
//! that a new one needs no restart and ends no connection. HTTP/1.1 is all that
//! is offered: it is what the listener speaks.

mod acme;
mod files;

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::ResolvesServerCert,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// What connections that answer an ACME challenge agree on (RFC 8737).
const CHALLENGE: &[u8] = b"acme-tls/1";
/// What all others do.
const HTTP: &[u8] = b"http/1.1";

/// Where the listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// PEM files, read again when they change.
    Files {
        /// The certificate, and after it those that lead to its root.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// An ACME service (RFC 8555), asked by TLS-ALPN-01 on this listener, which
    /// it must reach as port 443 of every domain.
    Acme {
        /// The names of the certificate.
        domains: Vec<String>,
        /// Whom the ACME service may write to, as `mailto:` URLs.
        contacts: Vec<String>,
        /// The ACME service's directory, an HTTPS URL.
        directory: String,
        /// A folder for the account's key and the certificates, for its owner
        /// alone.
        cache: PathBuf,
    },
}

/// Why the listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} {what}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key cannot be used together.
    #[error("the certificate {} cannot be used with the key {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The ACME service cannot be spoken to.
    #[error("no certificate can be asked for: {0}")]
    Acme(String),
    /// TLS itself.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Turns connections into TLS connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    fn new(certificates: Arc<dyn ResolvesServerCert>, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self(Arc::new(config).into()))
    }

    /// Shakes hands; the caller bounds the time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Whether a connection was an ACME service's look at a challenge, which the
/// handshake itself has answered.
pub(crate) fn is_challenge(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(CHALLENGE)
}

/// Keeps the certificate fresh while the service runs.
pub(crate) enum Keeper {
    Files(files::Files),
    Acme(Box<acme::Acme>),
}

impl Keeper {
    /// Runs until it is cancelled.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let keep = async {
            match self {
                Self::Files(files) => files.follow().await,
                Self::Acme(acme) => acme.renew().await,
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = keep => {}
        }
    }
}

/// Reads the certificate, or gets ready to ask for one.
///
/// # Errors
/// When the files cannot be used. An ACME service that does not answer is no
/// error: it is asked again.
pub(crate) async fn start(tls: &Tls) -> Result<(Acceptor, Keeper), TlsError> {
    match tls {
        Tls::Files { certificate, key } => {
            let files = files::Files::open(certificate.clone(), key.clone()).await?;
            let acceptor = Acceptor::new(files.certificates(), &[HTTP])?;
            Ok((acceptor, Keeper::Files(files)))
        }
        Tls::Acme { domains, contacts, directory, cache } => {
            let acme = acme::Acme::new(domains, contacts, directory, cache.clone())?;
            let acceptor = Acceptor::new(acme.certificates(), &[HTTP, CHALLENGE])?;
            Ok((acceptor, Keeper::Acme(Box::new(acme))))
        }
    }
}
