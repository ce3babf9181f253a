//! TLS to PostgreSQL, by the parameters that every client of it knows:
//!
//! | `sslmode` | encrypted | the server's certificate |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer`, the default | where the server offers it | is not looked at |
//! | `require` | yes | is not looked at; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | leads to a root |
//! | `verify-full` | yes | leads to a root, and names the host |
//!
//! `sslrootcert` names a PEM file with the roots; without it, or as `system`,
//! they are the platform's. tokio-postgres reads the rest of the URL.

use std::{path::PathBuf, sync::Arc};

use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    db::error::{Error, Result},
    roots,
};

/// What a server says that it speaks when TLS comes before its own protocol.
const PROTOCOL: &[u8] = b"postgresql";

/// How far a certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Root,
    RootAndName,
}

/// What a URL asks of TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Demands {
    mode: SslMode,
    check: Check,
    roots: Option<PathBuf>,
}

impl Demands {
    /// Takes the parameters about certificates out of a URL, which is given
    /// back without them.
    ///
    /// # Errors
    /// When `sslmode` is none of those in the module's table.
    pub(super) fn take(url: &str) -> Result<(String, Self)> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut file, mut others) = (None, None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let value = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            match parameter.split_once('=') {
                Some(("sslmode", text)) => mode = Some(value(text)),
                Some(("sslrootcert", text)) => file = Some(value(text)),
                _ => others.push(parameter),
            }
        }
        let rest = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
        let roots = file.filter(|file| file != "system").map(PathBuf::from);
        let (mode, check) = match (mode.as_deref(), &roots) {
            (Some("disable"), _) => (SslMode::Disable, Check::Nothing),
            (None | Some("prefer"), _) => (SslMode::Prefer, Check::Nothing),
            (Some("require"), None) => (SslMode::Require, Check::Nothing),
            (Some("require"), Some(_)) | (Some("verify-ca"), _) => (SslMode::Require, Check::Root),
            (Some("verify-full"), _) => (SslMode::Require, Check::RootAndName),
            (Some(other), _) => {
                return Err(Error::Pool(format!(
                    "the URL's sslmode={other:?} is none of disable, prefer, require, verify-ca, verify-full"
                )));
            }
        };
        Ok((rest, Self { mode, check, roots }))
    }

    /// Applies the mode, and makes what encrypts a connection.
    ///
    /// # Errors
    /// When the roots cannot be read.
    pub(super) fn connector(&self, config: &mut tokio_postgres::Config) -> Result<MakeRustlsConnect> {
        config.ssl_mode(self.mode);
        let unusable = |error: &dyn std::fmt::Display| Error::Pool(format!("TLS cannot be set up: {error}"));
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let roots = self.roots().map_err(|error| unusable(&error))?;
        let mut client = match (self.check, roots) {
            (Check::RootAndName, Some(roots)) => builder.with_root_certificates(roots),
            (_, roots) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Nameless { roots, provider }))
            }
        }
        .with_no_client_auth();
        if config.get_ssl_negotiation() == SslNegotiation::Direct {
            client.alpn_protocols = vec![PROTOCOL.to_vec()];
        }
        Ok(MakeRustlsConnect::new(client))
    }

    /// The roots, where a certificate is looked at.
    fn roots(&self) -> std::result::Result<Option<RootCertStore>, roots::RootsError> {
        match (self.check, &self.roots) {
            (Check::Nothing, _) => Ok(None),
            (_, Some(file)) => roots::of_file(file).map(Some),
            (_, None) => roots::platform().map(Some),
        }
    }
}

/// Accepts a certificate whatever it names: if it leads to a root, or, without
/// roots, any. That the server has its key is checked all the same.
#[derive(Debug)]
struct Nameless {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_about_certificates_are_taken_out_of_the_url() {
        let base = "postgres://u:p%40@h/d";
        let file = Some(PathBuf::from("/a b.pem"));
        for (query, rest, mode, check, roots) in [
            ("", "", SslMode::Prefer, Check::Nothing, None),
            ("?sslmode=disable", "", SslMode::Disable, Check::Nothing, None),
            ("?a=1&sslmode=require&b=2", "?a=1&b=2", SslMode::Require, Check::Nothing, None),
            ("?sslmode=require&sslrootcert=/a%20b.pem", "", SslMode::Require, Check::Root, file.clone()),
            ("?sslmode=verify-ca", "", SslMode::Require, Check::Root, None),
            ("?sslmode=verify-full&sslrootcert=system", "", SslMode::Require, Check::RootAndName, None),
            ("?sslrootcert=/a%20b.pem&sslmode=verify-full", "", SslMode::Require, Check::RootAndName, file),
        ] {
            let (url, demands) = Demands::take(&format!("{base}{query}")).expect("a good URL");
            assert_eq!((url, demands), (format!("{base}{rest}"), Demands { mode, check, roots }), "{query}");
        }
    }

    #[test]
    fn a_mode_that_would_not_be_honoured_is_refused() {
        for mode in ["allow", "verify_full", ""] {
            let error = Demands::take(&format!("postgres://h/d?sslmode={mode}")).expect_err(mode);
            assert!(error.to_string().contains("verify-full"), "{error}");
        }
    }
}
