//! A set of indexes, in the notation of an Indexed Job: `0-25,31`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::MOST_TARGETS;

/// Ranges with both ends in them, in order, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexSet(Vec<(u16, u16)>);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no set of indexes")]
pub struct NotIndexes(String);

impl IndexSet {
    pub fn contains(&self, index: u16) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// Whether it was not in the set before.
    pub fn insert(&mut self, index: u16) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        if self.0.get(at).is_some_and(|(first, _)| *first <= index) {
            return false;
        }
        let follows = at.checked_sub(1).filter(|before| self.0[*before].1.checked_add(1) == Some(index));
        let precedes = self.0.get(at).is_some_and(|(first, _)| index.checked_add(1) == Some(*first));
        match (follows, precedes) {
            (Some(before), true) => {
                self.0[before].1 = self.0[at].1;
                self.0.remove(at);
            }
            (Some(before), false) => self.0[before].1 = index,
            (None, true) => self.0[at].0 = index,
            (None, false) => self.0.insert(at, (index, index)),
        }
        true
    }

    pub fn len(&self) -> u16 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl FromIterator<u16> for IndexSet {
    fn from_iter<T: IntoIterator<Item = u16>>(indexes: T) -> Self {
        let mut set = Self::default();
        for index in indexes {
            set.insert(index);
        }
        set
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for IndexSet {
    type Err = NotIndexes;

    fn from_str(text: &str) -> Result<Self, NotIndexes> {
        let wrong = || NotIndexes(text.chars().take(100).collect());
        let index = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let index = part.parse::<u16>().ok().filter(|index| digits && *index < MOST_TARGETS);
            index.ok_or_else(wrong)
        };
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (index(first)?, index(last)?);
            // Each set has one notation.
            let apart = ranges.last().is_none_or(|(_, before)| before + 1 < first);
            if first > last || !apart {
                return Err(wrong());
            }
            ranges.push((first, last));
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_is_written_as_a_job_writes_it() {
        for (indexes, text) in [
            (vec![], ""),
            (vec![3], "3"),
            (vec![0, 1, 2], "0-2"),
            (vec![31, 0, 2, 1], "0-2,31"),
            (vec![0, 2, 4], "0,2,4"),
            (vec![9_999], "9999"),
        ] {
            let set: IndexSet = indexes.iter().copied().collect();
            assert_eq!(set.to_string(), text);
            assert_eq!(text.parse(), Ok(set));
        }
    }

    #[test]
    fn what_is_not_written_so_is_no_set() {
        for text in
            ["a", "1-", "-1", "1--2", "2-1", "1,", ",1", "1,1", "1,2", "0-5,3", "3,1", "10000", "+1", " 1", "1-2-3"]
        {
            assert!(text.parse::<IndexSet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in_and_is_read_as_it_was_written(indexes in prop::collection::vec(0..200_u16, 0..120)) {
            let mut set = IndexSet::default();
            let mut wanted = BTreeSet::new();
            for index in indexes {
                prop_assert_eq!(set.insert(index), wanted.insert(index));
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), wanted.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(usize::from(set.len()), wanted.len());
            for index in 0..200 {
                prop_assert_eq!(set.contains(index), wanted.contains(&index));
            }
            prop_assert_eq!(set.to_string().parse::<IndexSet>(), Ok(set));
        }
    }
}
