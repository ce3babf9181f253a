//! TLS for connections that this node dials: libp2p's, with the cipher that
//! this machine is fastest at asked for first.
//!
//! libp2p's own configuration puts ChaCha20 first, and servers follow the
//! client's order: between two machines with AES instructions that costs three
//! times as much as AES-GCM. Certificates are made and checked by
//! `libp2p::tls`, as <https://github.com/libp2p/specs/blob/master/tls/tls.md>
//! has it.

use std::{io, net::Ipv4Addr, sync::Arc};

use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use libp2p::{
    PeerId,
    identity::Keypair,
    tls::{TlsStream, certificate},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            cipher_suite::{
                TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::StartError;

/// The protocol inside, as the specification names it.
const ALPN: &[u8] = b"libp2p";

/// The dialling side.
#[derive(Clone)]
pub(super) struct Client(Arc<ClientConfig>);

impl Client {
    pub(super) fn new(key: &Keypair) -> Result<Self, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Key(error.to_string());
        let (certificate, secret) = certificate::generate(key).map_err(|e| failed(&e))?;
        let provider = Arc::new(CryptoProvider { cipher_suites: ciphers(), ..aws_lc_rs::default_provider() });
        let verifier = Arc::new(Verifier(Arc::clone(&provider)));
        let secret = provider.key_provider.load_private_key(secret).map_err(|e| failed(&e))?;
        let own = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], secret));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| failed(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Encrypts a connection and tells who is at its other end.
    pub(super) async fn connect<C>(self, socket: C) -> io::Result<(PeerId, TlsStream<C>)>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        // An address instead of a name: the specification forbids to send one.
        let nameless = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let stream = TlsConnector::from(self.0).connect(nameless, socket).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| io::Error::other("a peer without a certificate"))?;
        let peer = certificate::parse(certificate).map_err(io::Error::other)?.peer_id();
        Ok((peer, stream.into()))
    }
}

/// AES-GCM first where the processor has instructions for it.
fn ciphers() -> Vec<SupportedCipherSuite> {
    let aes = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let chacha = [TLS13_CHACHA20_POLY1305_SHA256];
    if has_aes() { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Takes whoever proves to own the key that the certificate names. Whether
/// that is who was dialled, the swarm checks.
#[derive(Debug)]
struct Verifier(Arc<CryptoProvider>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !intermediates.is_empty() {
            return Err(rustls::Error::General("a peer presents exactly one certificate".into()));
        }
        certificate::parse(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("peers speak TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(certificate)?.verify_signature(
            signature.scheme,
            message,
            signature.signature(),
        )?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p::{core::upgrade::InboundConnectionUpgrade as _, tls};
    use rustls::CipherSuite;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn both_sides_learn_who_the_other_is_and_use_aes_where_it_is_fast() {
        let (dialler, listener) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tls::Config::new(&listener).unwrap().upgrade_inbound(theirs.compat(), "/tls/1.0.0");
        let client = Client::new(&dialler).unwrap().connect(ours.compat());
        let (client, server) = futures::join!(client, server);
        let ((to, mut client), (from, mut server)) = (client.unwrap(), server.unwrap());
        assert_eq!((to, from), (listener.public().to_peer_id(), dialler.public().to_peer_id()));
        let suite = client.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        let fast = CipherSuite::TLS13_AES_128_GCM_SHA256;
        assert_eq!(suite == fast, has_aes(), "{suite:?}");
        client.write_all(b"block").await.unwrap();
        client.flush().await.unwrap();
        let mut word = [0; 5];
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"block");
    }
}
