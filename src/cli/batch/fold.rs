//! Many names as few words, as clush folds them: `db-[0-41,43],web-7f9`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::core::batch::targets::natural;

/// Most digits of a number; longer ones are text.
const MOST_DIGITS: usize = 18;

/// What names must have in common but for one number: what is before and after it, and, where it begins with a zero, how
/// many digits it has.
type Stem<'a> = (&'a str, &'a str, usize);

/// The names in their order, those that differ in their last number alone as one.
pub fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    words(names).join(",")
}

/// The same, of at most so many characters; that some are left out is seen.
pub fn fold_within<'a>(names: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    let folded = fold(names);
    if folded.chars().count() <= most {
        return folded;
    }
    let cut: String = folded.chars().take(most.saturating_sub(3)).collect();
    // Not in the middle of a name or a number.
    let whole = cut.rfind(',').map_or(cut.as_str(), |comma| &cut[..=comma]);
    format!("{whole}...")
}

fn words<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (mut stems, mut plain): (BTreeMap<Stem<'a>, BTreeSet<u64>>, BTreeSet<&str>) = Default::default();
    for name in names {
        match split(name) {
            Some((stem, number)) => {
                stems.entry(stem).or_default().insert(number);
            }
            None => {
                plain.insert(name);
            }
        }
    }
    join_widths(&mut stems);
    let folded = stems.into_iter().map(|((before, after, width), numbers)| {
        let first = numbers.first().map_or_else(String::new, |first| format!("{before}{first:0width$}{after}"));
        let text =
            if numbers.len() == 1 { first.clone() } else { format!("{before}[{}]{after}", ranges(&numbers, width)) };
        (first, text)
    });
    let mut all: Vec<(String, String)> =
        folded.chain(plain.into_iter().map(|name| (name.to_owned(), name.to_owned()))).collect();
    all.sort_by(|(one, _), (other, _)| natural(one, other));
    all.into_iter().map(|(_, text)| text).collect()
}

/// `db-09` and `db-10` have the same number of digits, though only one has a zero before it.
fn join_widths(stems: &mut BTreeMap<Stem<'_>, BTreeSet<u64>>) {
    let padded: Vec<Stem<'_>> = stems.keys().filter(|(_, _, width)| *width > 0).copied().collect();
    for (before, after, width) in padded {
        let Some(others) = stems.get_mut(&(before, after, 0)) else { continue };
        let same: BTreeSet<u64> = others.iter().filter(|number| number.to_string().len() == width).copied().collect();
        others.retain(|number| !same.contains(number));
        if others.is_empty() {
            stems.remove(&(before, after, 0));
        }
        stems.entry((before, after, width)).or_default().extend(same);
    }
}

/// Splits a name at its last number.
fn split(name: &str) -> Option<(Stem<'_>, u64)> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    let start = name.char_indices().map(|(at, _)| at).find(|at| *at >= start)?;
    let digits = &name[start..end];
    if digits.len() > MOST_DIGITS {
        return None;
    }
    let width = if digits.len() > 1 && digits.starts_with('0') { digits.len() } else { 0 };
    Some(((&name[..start], &name[end..], width), digits.parse().ok()?))
}

fn ranges(numbers: &BTreeSet<u64>, width: usize) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            Some(_) | None => ranges.push((*number, *number)),
        }
    }
    let mut text = String::new();
    for (at, (first, last)) in ranges.into_iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        write!(text, "{comma}{first:0width$}").unwrap_or_default();
        if last > first {
            write!(text, "-{last:0width$}").unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_clush_folds_them() {
        for (names, folded) in [
            (&[][..], ""),
            (&["db-0"], "db-0"),
            (&["db-2", "db-0", "db-1", "db-10"], "db-[0-2,10]"),
            (&["db-0", "web", "db-1", "a"], "a,db-[0-1],web"),
            (&["n1-a", "n2-a", "n3-b"], "n[1-2]-a,n3-b"),
            (&["n08", "n09", "n10", "n100"], "n[08-10],n100"),
            (&["n8", "n08"], "n08,n8"),
            (&["web-7f9c4-x2k5p", "web-7f9c4-x3k5p"], "web-7f9c4-x2k5p,web-7f9c4-x3k5p"),
            (&["db-0", "db-0"], "db-0"),
            (&["x-1234567890123456789012"], "x-1234567890123456789012"),
            (&["1", "2"], "[1-2]"),
            (&["ä1", "ä2"], "ä[1-2]"),
        ] {
            assert_eq!(fold(names.iter().copied()), folded, "{names:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_names() {
        let names = ["a", "b", "web-[", "db-0", "db-2", "db-4"];
        assert_eq!(fold_within(names, 100), "a,b,db-[0,2,4],web-[");
        assert_eq!(fold_within(names, 12), "a,b,...");
        assert_eq!(fold_within(["averylongname"], 8), "avery...");
    }
}
