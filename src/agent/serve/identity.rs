//! The certificate of the stream server: made in memory at each start, and published in the Lease. Clients pin it, so it
//! needs no authority.

use std::{net::SocketAddr, sync::Arc};

use rcgen::CertifiedKey;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use thiserror::Error;

use crate::api::names;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub endpoint: SocketAddr,
    /// In PEM.
    pub certificate: String,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("the stream server's certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the stream server's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// A new key, and its certificate for `endpoint`. The key is never written anywhere.
pub fn make(endpoint: SocketAddr) -> Result<(Arc<ServerConfig>, Published), IdentityError> {
    let names = vec![names::STREAM_SERVER.to_owned(), endpoint.ip().to_string()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), Published { endpoint, certificate: cert.pem() }))
}
