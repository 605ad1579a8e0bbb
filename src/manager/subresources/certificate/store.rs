//! What the Secret holds: the pair that is served, the next one, and the authorities to trust.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, jiff::Timestamp};

use super::pair::{Pair, validity_of_pem};

/// Keys of the Secret; the first three as in any Secret of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.tls.crt";
const NEXT_KEY: &str = "next.tls.key";
/// Authorities in the bundle, at most: far more than are ever needed, because one that is left out may be of the pair
/// that is served.
const MOST_AUTHORITIES: usize = 8;

type Data = BTreeMap<String, ByteString>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) current: Option<Pair>,
    pub(super) next: Option<Pair>,
    /// In PEM; the newest first.
    pub(super) authorities: Vec<String>,
}

impl Stored {
    pub(super) fn read(data: Option<&Data>) -> Self {
        let text = |key: &str| {
            let bytes = data.and_then(|data| data.get(key))?;
            String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
        };
        let pair = |certificate, key| Some(Pair { certificate: text(certificate)?, key: text(key)? });
        Self {
            current: pair(CERTIFICATE, KEY),
            next: pair(NEXT_CERTIFICATE, NEXT_KEY),
            authorities: text(BUNDLE).map(|bundle| split(&bundle)).unwrap_or_default(),
        }
    }

    /// For the Secret. What is missing is written as empty, so that nothing old stays.
    pub(super) fn write(&self) -> Data {
        let of = |pair: &Option<Pair>| match pair {
            Some(pair) => (pair.certificate.clone(), pair.key.clone()),
            None => (String::new(), String::new()),
        };
        let ((certificate, key), (next_certificate, next_key)) = (of(&self.current), of(&self.next));
        let entries = [
            (CERTIFICATE, certificate),
            (KEY, key),
            (BUNDLE, self.bundle()),
            (NEXT_CERTIFICATE, next_certificate),
            (NEXT_KEY, next_key),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
    }

    pub(super) fn bundle(&self) -> String {
        self.authorities.concat()
    }

    pub(super) fn begin(self, (pair, authority): (Pair, String), now: Timestamp) -> Self {
        let authorities = self.trusting(authority, now);
        Self { current: Some(pair), next: None, authorities }
    }

    pub(super) fn with_next(self, (pair, authority): (Pair, String), now: Timestamp) -> Self {
        let authorities = self.trusting(authority, now);
        Self { next: Some(pair), authorities, ..self }
    }

    /// The next pair is served from now on. The authority of the one before stays trusted: not every replica has seen
    /// the change yet.
    pub(super) fn promoted(self) -> Self {
        match self.next {
            Some(next) => Self { current: Some(next), next: None, ..self },
            None => self,
        }
    }

    fn trusting(&self, authority: String, now: Timestamp) -> Vec<String> {
        let good = |authority: &&String| validity_of_pem(authority).is_ok_and(|validity| now < validity.not_after);
        let before = self.authorities.iter().filter(good).cloned();
        std::iter::once(authority).chain(before).take(MOST_AUTHORITIES).collect()
    }
}

fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle
        .split_inclusive(END)
        .filter(|part| part.ends_with(END))
        .map(|part| format!("{}\n", part.trim_start()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn pair(second: i64) -> (Pair, String) {
        Pair::make(&["a.b.svc".to_owned()], at(second), Duration::from_secs(1000)).expect("a pair")
    }

    #[test]
    fn both_authorities_are_trusted_while_one_pair_follows_the_other() {
        let (first, second) = (pair(0), pair(600));
        let begun = Stored::default().begin(first.clone(), at(0));
        assert_eq!(begun.authorities, [first.1.as_str()].map(normal));

        let read = Stored::read(Some(&begun.write()));
        let with_next = read.with_next(second.clone(), at(600));
        assert_eq!(with_next.authorities, [&*second.1, &*first.1].map(normal));

        let read = Stored::read(Some(&with_next.write()));
        assert_eq!((read.current.as_ref(), read.next.as_ref()), (Some(&first.0), Some(&second.0)));
        let promoted = read.promoted();
        assert_eq!((promoted.current.as_ref(), promoted.next.as_ref()), (Some(&second.0), None));
        assert_eq!(promoted.authorities.len(), 2, "the one before is trusted on");

        let third = Stored::read(Some(&promoted.write())).with_next(pair(1200), at(1200));
        assert_eq!(third.authorities.len(), 2, "one that has ended is not");
    }

    /// As a bundle is read again.
    fn normal(pem: &str) -> String {
        format!("{}\n", pem.replace("\r\n", "\n").trim())
    }

    #[test]
    fn what_cannot_be_read_is_as_if_it_were_not_there() {
        assert_eq!(Stored::read(None), Stored::default());
        let data = BTreeMap::from([
            (CERTIFICATE.to_owned(), ByteString(vec![0xff])),
            (KEY.to_owned(), ByteString(b"x".to_vec())),
            (BUNDLE.to_owned(), ByteString(b"nothing".to_vec())),
        ]);
        assert_eq!(Stored::read(Some(&data)), Stored::default());
    }
}
