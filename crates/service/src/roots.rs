//! The certificates that this machine trusts, and those of a file.

use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The machine has no list of roots.
    #[error(
        "this machine trusts no certificates ({0}); install the package ca-certificates, or name a file in SSL_CERT_FILE"
    )]
    Platform(String),
    /// A file with roots cannot be used.
    #[error("the root certificates of {} cannot be used: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
}

/// The platform's roots; the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` stand
/// in for them.
///
/// # Errors
/// When there are none.
pub(crate) fn platform() -> Result<RootCertStore, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "no list was found".to_owned(), ToString::to_string);
        return Err(RootsError::Platform(why));
    }
    Ok(roots)
}

/// The roots of a PEM file.
///
/// # Errors
/// When it cannot be read or holds no certificate.
pub(crate) fn of_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let failed = |what: String| RootsError::File { path: path.to_owned(), what };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}
