//! Certificates from an ACME service, asked for and renewed by `rustls-acme`
//! after two thirds of their time; what fails is tried again with growing
//! pauses. The account's key and the certificates are kept in a folder, so that
//! a restart asks for nothing.

use std::{io, path::PathBuf, sync::Arc};

use futures::StreamExt;
use rustls::{ClientConfig, server::ResolvesServerCert};
use rustls_acme::{AcmeConfig, AcmeState, caches::DirCache};

use super::TlsError;
use crate::roots;

/// Asks for certificates and renews them.
pub(crate) struct Acme(AcmeState<io::Error>);

impl Acme {
    pub(super) fn new(
        domains: &[String],
        contacts: &[String],
        directory: &str,
        cache: PathBuf,
    ) -> Result<Self, TlsError> {
        let roots = roots::platform().map_err(|error| TlsError::Acme(error.to_string()))?;
        let client = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = AcmeConfig::new_with_client_config(domains, Arc::new(client))
            .contact(contacts)
            .directory(directory)
            .cache(DirCache::new(cache));
        Ok(Self(config.state()))
    }

    pub(super) fn certificates(&self) -> Arc<dyn ResolvesServerCert> {
        self.0.resolver()
    }

    /// Keeps the certificate valid, for ever.
    pub(super) async fn renew(mut self) {
        while let Some(event) = self.0.next().await {
            match event {
                Ok(event) => tracing::info!(?event, "the certificate"),
                Err(error) => tracing::error!(%error, "no certificate was issued; trying again"),
            }
        }
    }
}
