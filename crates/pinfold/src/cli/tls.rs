//! The flags of TLS.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pinfold_service::Tls;

use super::DataArgs;
use crate::usage::wrong_usage;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Where certificates and the ACME account's key are kept in a data folder.
const CACHE: &str = "acme";

/// How the API's listener speaks TLS: without any of these, it does not.
#[derive(Clone, Debug, Args)]
pub(crate) struct TlsArgs {
    /// Serve HTTPS with the certificate of this PEM file, the server's own first; read again when it
    /// changes
    #[arg(long, env = "PINFOLD_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, a PEM file
    #[arg(long, env = "PINFOLD_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Serve HTTPS with a certificate for these domains that Let's Encrypt (or --tls-acme-directory)
    /// issues; port 443 of each must lead to --api
    #[arg(long, env = "PINFOLD_TLS_ACME", value_delimiter = ',', value_name = "DOMAIN")]
    pub(crate) tls_acme: Vec<String>,
    /// Mail address that the issuer may write to
    #[arg(long, env = "PINFOLD_TLS_ACME_CONTACT", value_delimiter = ',', value_name = "MAIL")]
    pub(crate) tls_acme_contact: Vec<String>,
    /// Directory of the ACME service to ask, by TLS-ALPN-01
    #[arg(long, env = "PINFOLD_TLS_ACME_DIRECTORY", default_value = DIRECTORY, value_name = "URL")]
    pub(crate) tls_acme_directory: String,
}

impl TlsArgs {
    /// What the flags ask for.
    ///
    /// # Errors
    /// When they contradict each other.
    pub(crate) fn tls(&self, data: &DataArgs) -> Result<Option<Tls>> {
        match (&self.tls_cert, &self.tls_key, self.tls_acme.is_empty()) {
            (None, None, true) => Ok(None),
            (None, None, false) => Ok(Some(self.acme(data)?)),
            (Some(certificate), Some(key), true) => {
                Ok(Some(Tls::Files { certificate: certificate.clone(), key: key.clone() }))
            }
            (Some(_), None, _) => {
                wrong_usage!("--tls-cert needs its private key: name it with --tls-key FILE")
            }
            (None, Some(_), _) => {
                wrong_usage!("--tls-key needs its certificate: name it with --tls-cert FILE")
            }
            (Some(_), Some(_), false) => {
                wrong_usage!("--tls-cert and --tls-acme are two ways to the same certificate; leave one out")
            }
        }
    }

    fn acme(&self, data: &DataArgs) -> Result<Tls> {
        if !self.tls_acme_directory.starts_with("https://") {
            wrong_usage!("--tls-acme-directory {:?} is not an https:// URL", self.tls_acme_directory);
        }
        let url = |contact: &String| match contact.contains(':') {
            true => contact.clone(),
            false => format!("mailto:{contact}"),
        };
        Ok(Tls::Acme {
            domains: self.tls_acme.clone(),
            contacts: self.tls_acme_contact.iter().map(url).collect(),
            directory: self.tls_acme_directory.clone(),
            cache: data.data.join(CACHE),
        })
    }

    /// Whether the listener speaks TLS.
    pub(crate) fn is_on(&self) -> bool {
        self.tls_cert.is_some() || !self.tls_acme.is_empty()
    }

    /// The service as users reach it under the first domain of its certificate.
    pub(crate) fn public_url(&self) -> Option<String> {
        self.tls_acme.first().map(|domain| format!("https://{domain}"))
    }
}
