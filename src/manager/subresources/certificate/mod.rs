//! The certificate that the API server sees: made here, or mounted.
//!
//! `plan` says what is due, `pair` makes and reads certificates, `store` is the Secret, `keeper` keeps it and the
//! `APIService`, `files` reads what somebody else mounts, `serving` is what the server presents.

pub(super) mod files;
pub(super) mod keeper;
mod pair;
pub(super) mod plan;
pub(super) mod serving;
mod store;

/// Presents a new certificate for this name, and gives the authority to trust for it.
#[cfg(test)]
pub(super) fn serve_new(
    serving: &serving::Serving,
    name: &str,
    now: k8s_openapi::jiff::Timestamp,
    provider: &rustls::crypto::CryptoProvider,
) -> String {
    let (pair, authority) =
        pair::Pair::make(&[name.to_owned()], now, std::time::Duration::from_secs(3600)).expect("a pair");
    serving.set(pair.read(name, provider).expect("usable").serving);
    authority
}
