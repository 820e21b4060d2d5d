//! Certificates of devices: made by themselves, so they are known by their fingerprint or not at all.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use netflash_pxe::Hex32;

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin(Hex32);

impl Pin {
    fn of(certificate: &CertificateDer<'_>) -> Pin {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Pin(Hex32(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Pin {
    type Err = netflash_pxe::HexError;

    fn from_str(text: &str) -> Result<Pin, Self::Err> {
        text.parse().map(Pin)
    }
}

/// Accepts the one certificate that is pinned. Names, dates and issuers say nothing where a device signs for itself;
/// that it holds the key is proved by the handshake all the same.
#[derive(Debug)]
pub(super) struct PinVerifier {
    /// `None`: any, to learn which one it is. No secret may be sent then.
    pinned: Option<Pin>,
    met: Mutex<Option<Pin>>,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    /// A verifier, and the configuration that uses it.
    pub(super) fn new(
        pinned: Option<Pin>,
    ) -> Result<(Arc<PinVerifier>, ClientConfig), rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(PinVerifier {
            pinned,
            met: Mutex::new(None),
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok((verifier, config))
    }

    /// The certificate that was shown.
    pub(super) fn met(&self) -> Option<Pin> {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Pin::of(end_entity);
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        match self.pinned {
            Some(pinned) if pinned != shown => {
                let error = CertificateError::ApplicationVerificationFailure;
                Err(rustls::Error::InvalidCertificate(error))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
