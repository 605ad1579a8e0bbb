//! A certificate, its key and the authority that signed it: made, and read.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    client::verify_server_name,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::{BACKDATED, Validity};

#[derive(Debug, Error)]
pub(super) enum PairError {
    #[error("a certificate could not be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("{0} cannot be read: {1}")]
    Unreadable(&'static str, String),
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("{0:?} is not a DNS name")]
    NotAName(String),
}

/// In PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Without the key.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Usable {
    pub(super) serving: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

impl Pair {
    /// A new pair for these DNS names, with the new authority that signed it, whose key is forgotten at once.
    pub(super) fn make(names: &[String], now: Timestamp, life: Duration) -> Result<(Self, String), PairError> {
        let begin = now.checked_sub(BACKDATED).unwrap_or(now);
        let end = now.checked_add(life).unwrap_or(Timestamp::MAX);
        let params = |name: String, alternatives: &[String]| {
            let mut params = CertificateParams::new(alternatives)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = std::time::SystemTime::from(begin).into();
            params.not_after = std::time::SystemTime::from(end).into();
            params.use_authority_key_identifier_extension = true;
            Ok::<_, rcgen::Error>(params)
        };
        // Each authority has a name of its own, so that none is taken for another.
        let mut authority = params(format!("execlet subresources {}", now.as_nanosecond()), &[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut leaf = params(names.first().cloned().unwrap_or_default(), names)?;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &authority)?.pem();
        Ok((Self { certificate, key: key.serialize_pem() }, authority.pem()))
    }

    /// Reads it, and checks that key and certificate belong together and are for this DNS name.
    pub(super) fn read(&self, name: &str, provider: &CryptoProvider) -> Result<Usable, PairError> {
        let usable = read(self.certificate.as_bytes(), self.key.as_bytes(), provider)?;
        let wanted = ServerName::try_from(name).map_err(|_| PairError::NotAName(name.to_owned()))?;
        let first = usable.serving.end_entity_cert()?;
        verify_server_name(&ParsedCertificate::try_from(first)?, &wanted)?;
        Ok(usable)
    }
}

pub(super) fn read(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Usable, PairError> {
    let unreadable = |what, error: &dyn std::fmt::Display| PairError::Unreadable(what, error.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| unreadable("the certificate", &error))?;
    let first = chain.first().ok_or_else(|| unreadable("the certificate", &"it is empty"))?;
    let validity = validity(first).map_err(|error| unreadable("the certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unreadable("the key", &error))?;
    let serving = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| unreadable("the certificate with its key", &error))?;
    Ok(Usable { serving: Arc::new(serving), validity })
}

pub(super) fn validity_of_pem(certificate: &str) -> Result<Validity, String> {
    validity(&CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| error.to_string())?)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let time = |second| Timestamp::from_second(second).map_err(|error| error.to_string());
    let validity = parsed.validity();
    Ok(Validity {
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::ring::default_provider,
        pki_types::{ServerName, UnixTime},
    };

    use super::*;

    const NAME: &str = "execlet-manager.execlet.svc";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn make() -> (Pair, String) {
        Pair::make(&[NAME.to_owned()], at(1_800_000_000), Duration::from_secs(600)).expect("a pair")
    }

    /// What the API server does with its caBundle.
    fn verify(pair: &Pair, authority: &str, name: &'static str, second: u64) -> Result<(), rustls::Error> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let name = ServerName::try_from(name).expect("a name");
        verifier.verify_server_cert(&certificate, &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_certificate_is_good_for_its_name_by_its_authority_while_it_lives() {
        let (pair, authority) = make();
        assert!(verify(&pair, &authority, NAME, 1_800_000_000).is_ok());
        assert!(verify(&pair, &authority, NAME, 1_800_000_000 - 299).is_ok(), "by a clock that is behind");
        assert!(verify(&pair, &authority, NAME, 1_800_000_601).is_err());
        assert!(verify(&pair, &authority, "other.execlet.svc", 1_800_000_000).is_err());
        assert!(verify(&pair, &make().1, NAME, 1_800_000_000).is_err(), "each has its own authority");
    }

    #[test]
    fn what_does_not_belong_together_or_is_for_another_name_is_not_usable() {
        let (pair, _) = make();
        let provider = default_provider();
        let usable = pair.read(NAME, &provider).expect("usable");
        assert_eq!(usable.validity, Validity { not_before: at(1_799_999_700), not_after: at(1_800_000_600) });
        assert!(pair.read("other.execlet.svc", &provider).is_err());
        let mixed = Pair { key: make().0.key, ..pair.clone() };
        assert!(mixed.read(NAME, &provider).is_err());
        for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Pair { certificate: broken.to_owned(), ..pair.clone() }.read(NAME, &provider).is_err());
        }
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }
}
