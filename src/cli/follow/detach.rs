//! The keys that leave a terminal without ending what runs in it, like docker's `--detach-keys`.
//!
//! They may come in one read or in many. What could be their beginning is held
//! back, and passed on once it is not.

use std::str::FromStr;

pub const DEFAULT: &str = "ctrl-p,ctrl-q";
const MOST: usize = 16;

/// A sequence of keys; if it is empty there is no way to detach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > MOST {
            return Err(format!("{} keys: at most {MOST} are possible", keys.len()));
        }
        Ok(Self(keys))
    }
}

fn key(text: &str) -> Result<u8, String> {
    let wrong = || format!("{text:?} is not a key: use a character, or ctrl- with one of a-z @ [ \\ ] ^ _");
    let one = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(*byte),
        _ => Err(wrong()),
    };
    match text.strip_prefix("ctrl-") {
        Some(with) => match one(with)? {
            byte @ b'a'..=b'z' => Ok(byte - b'a' + 1),
            byte @ b'@'..=b'_' if !byte.is_ascii_uppercase() => Ok(byte - b'@'),
            _ => Err(wrong()),
        },
        None => one(text),
    }
}

#[derive(Debug)]
pub struct Scanner {
    keys: DetachKeys,
    /// What was typed and may be the beginning of the keys.
    held: Vec<u8>,
}

impl Scanner {
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: Vec::new() }
    }

    /// The typed bytes to pass on, and whether the keys were pressed. What was typed after them is dropped.
    pub fn scan(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        if keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            self.held.push(*byte);
            while !keys.starts_with(&self.held) {
                pass.push(self.held.remove(0));
            }
            if self.held.len() == keys.len() {
                self.held.clear();
                return (pass, true);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scanner(keys: &str) -> Scanner {
        Scanner::new(keys.parse().expect("keys"))
    }

    #[test]
    fn keys_are_read_as_docker_writes_them() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", &[0, 27, 28, 29, 30, 31]),
            ("~,.", b"~."),
            ("a", b"a"),
            ("", b""),
        ] {
            assert_eq!(text.parse(), Ok(DetachKeys(bytes.to_vec())), "{text}");
        }
        for text in ["ctrl-", "ctrl-A", "ctrl-1", "ab", ",", "ctrl-p,", "ä", " ", &vec!["a"; 17].join(",")] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_keys_are_found_across_reads() {
        let mut scanner = scanner(DEFAULT);
        assert_eq!(scanner.scan(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(scanner.scan(b"\x11never"), (Vec::new(), true));
    }

    #[test]
    fn what_only_began_like_them_is_handed_on() {
        let mut scanner = scanner(DEFAULT);
        assert_eq!(scanner.scan(b"\x10"), (Vec::new(), false));
        assert_eq!(scanner.scan(b"\x10"), (vec![0x10], false));
        assert_eq!(scanner.scan(b"x"), (b"\x10x".to_vec(), false));
    }

    #[test]
    fn a_beginning_within_a_beginning_counts() {
        let mut scanner = scanner("a,a,b");
        assert_eq!(scanner.scan(b"aaab"), (b"a".to_vec(), true));
    }

    #[test]
    fn without_keys_everything_is_handed_on() {
        assert_eq!(scanner("").scan(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_first_keys_count(
            typed in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')], 0..40),
            cuts in prop::collection::vec(1_usize..5, 40),
        ) {
            let mut scanner = scanner("a,b,a");
            let (mut passed, mut found) = (Vec::new(), false);
            let (mut rest, mut cuts) = (&typed[..], cuts.into_iter());
            while !rest.is_empty() && !found {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                let (pass, detached) = scanner.scan(now);
                passed.extend(pass);
                found = detached;
                rest = later;
            }
            if let Some(at) = typed.windows(3).position(|three| three == b"aba") {
                prop_assert!(found);
                prop_assert_eq!(passed, &typed[..at]);
            } else {
                prop_assert!(!found);
                passed.extend(&scanner.held);
                prop_assert_eq!(passed, typed);
            }
        }
    }
}
