//! The server's private certificate authority and its certificate.
//!
//! Agents and the command line trust this authority and no other. Dates mean nothing: a machine that boots may have
//! any clock, so everything is valid from 1970 to 4096.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use netflash_pxe::SERVER_NAME;

use crate::data_dir::{DataDir, DirError};

const CA_KEY: &str = "ca.key";
const CA_PEM: &str = "ca.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_PEM: &str = "server.pem";

/// Why there are no usable keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// A key file cannot be read or written.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// Making a certificate failed.
    #[error("making certificates")]
    Make(#[from] rcgen::Error),
    /// A file holds no usable PEM.
    #[error("{file} holds no usable PEM")]
    Pem {
        /// The file.
        file: &'static str,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and key do not fit together.
    #[error("{SERVER_PEM} and {SERVER_KEY} are not usable; remove both to have new ones made")]
    Use(#[from] rustls::Error),
}

/// The server's keys, made at the first start.
pub(crate) struct Pki {
    /// The authority's certificate.
    pub(crate) ca_pem: String,
    server_pem: String,
    server_key: String,
}

impl Pki {
    /// Load what `dir` holds, and make what is missing.
    pub(crate) fn open(dir: &DataDir) -> Result<Pki, PkiError> {
        let (ca_pem, ca_key) = match (dir.read(CA_PEM)?, dir.read(CA_KEY)?) {
            (Some(pem), Some(key)) => (pem, key),
            _ => {
                let (pem, key) = make_ca()?;
                dir.write(CA_KEY, 0o600, key.as_bytes())?;
                dir.write(CA_PEM, 0o644, pem.as_bytes())?;
                // A certificate of the former authority would be refused by everybody.
                let (pem_server, key_server) = make_server(&key)?;
                dir.write(SERVER_KEY, 0o600, key_server.as_bytes())?;
                dir.write(SERVER_PEM, 0o644, pem_server.as_bytes())?;
                (pem, key)
            }
        };
        let (server_pem, server_key) = match (dir.read(SERVER_PEM)?, dir.read(SERVER_KEY)?) {
            (Some(pem), Some(key)) => (pem, key),
            _ => {
                let (pem, key) = make_server(&ca_key)?;
                dir.write(SERVER_KEY, 0o600, key.as_bytes())?;
                dir.write(SERVER_PEM, 0o644, pem.as_bytes())?;
                (pem, key)
            }
        };
        Ok(Pki {
            ca_pem,
            server_pem,
            server_key,
        })
    }

    /// TLS as the server speaks it.
    pub(crate) fn tls(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let pem = |file, source| PkiError::Pem { file, source };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(self.server_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|source| pem(SERVER_PEM, source))?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())
            .map_err(|source| pem(SERVER_KEY, source))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

fn make_ca() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((ca_params()?.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(Vec::new(), "netflash server authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn make_server(ca_key: &str) -> Result<(String, String), rcgen::Error> {
    let issuer = Issuer::new(ca_params()?, KeyPair::from_pem(ca_key)?);
    let key = KeyPair::generate()?;
    let mut params = params(vec![SERVER_NAME.to_owned()], "netflash server")?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::{Pki, SERVER_PEM};
    use crate::data_dir::DataDir;

    #[test]
    fn keys_are_made_once_and_fit() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let first = Pki::open(&dir).unwrap();
        first.tls().unwrap();
        let again = Pki::open(&dir).unwrap();
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_eq!(first.server_pem, again.server_pem);
    }

    #[test]
    fn a_lost_certificate_is_made_again_by_the_same_authority() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let first = Pki::open(&dir).unwrap();
        std::fs::remove_file(dir.path(SERVER_PEM)).unwrap();
        let again = Pki::open(&dir).unwrap();
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_ne!(first.server_pem, again.server_pem);
        again.tls().unwrap();
    }
}
