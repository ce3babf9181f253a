//! A certificate and its key from PEM files.
//!
//! Whoever renews them may write one after the other, so a pair that does not
//! belong together is looked at again, and the old one stays in force until the
//! new one is whole.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::TlsError;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest file; a long chain has 10 KiB.
const MAX_FILE: u64 = 1 << 20;

/// The certificate in force.
#[derive(Debug)]
struct Certificates(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// Follows a pair of files.
pub(crate) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    in_force: Arc<Certificates>,
    digest: [u8; 32],
}

/// What was read, and what tells it from what is in force.
struct Loaded {
    pair: Arc<CertifiedKey>,
    digest: [u8; 32],
}

impl Files {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(super) async fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let Loaded { pair, digest } = load(&certificate, &key).await?;
        Ok(Self { certificate, key, in_force: Arc::new(Certificates(RwLock::new(pair))), digest })
    }

    pub(super) fn certificates(&self) -> Arc<dyn ResolvesServerCert> {
        self.in_force.clone()
    }

    /// Puts what changes in force, for ever.
    pub(super) async fn follow(mut self) {
        let mut failing = false;
        loop {
            sleep(LOOK).await;
            match load(&self.certificate, &self.key).await {
                Ok(loaded) => {
                    failing = false;
                    self.put(loaded);
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "the certificate stays as it was");
                }
                Err(_) => {}
            }
        }
    }

    fn put(&mut self, loaded: Loaded) {
        if loaded.digest != self.digest {
            self.digest = loaded.digest;
            *self.in_force.0.write() = loaded.pair;
            tracing::info!(path = %self.certificate.display(), "a new certificate is in force");
        }
    }
}

async fn load(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    let failed = TlsError::Form { path: certificate.clone(), what: "cannot be parsed".to_owned() };
    tokio::task::spawn_blocking(move || parse(&certificate, &key)).await.unwrap_or(Err(failed))
}

fn parse(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    let (chain_pem, key_pem) = (read(certificate)?, read(key)?);
    let digest = Sha256::new().chain_update(&chain_pem).chain_update([0]).chain_update(&key_pem).finalize();
    let form = |path: &Path, what: &str| TlsError::Form { path: path.to_owned(), what: what.to_owned() };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| form(certificate, &format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(form(certificate, "holds no certificate; it is to be PEM, the server's own first"));
    }
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| form(key, &format!("holds no private key in PEM: {error}")))?;
    let pair = CertifiedKey::from_der(chain, private, &super::provider()).map_err(|source| {
        TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source }
    })?;
    Ok(Loaded { pair: Arc::new(pair), digest: digest.into() })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(TlsError::Form { path: path.to_owned(), what: "is longer than 1 MiB".to_owned() });
    }
    Ok(bytes)
}
