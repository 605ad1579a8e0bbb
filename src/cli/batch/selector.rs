//! A selector of labels as kubectl takes it: `app=shop,tier!=cache,zone in (a,b),!canary`.

use std::collections::BTreeMap;

use crate::api::batch::{Operator, PodSelector, Requirement};

pub fn selector(text: &str) -> Result<PodSelector, String> {
    let mut selector = PodSelector::default();
    for part in parts(text) {
        let part = part.trim();
        if let Some((key, value)) = equality(part)? {
            // A label that is asked for twice with two values is on no pod: that is for the API server to find.
            if selector.match_labels.get(&key).is_some_and(|before| *before != value) {
                selector.match_expressions.push(Requirement { key, operator: Operator::In, values: vec![value] });
            } else {
                selector.match_labels.insert(key, value);
            }
        } else {
            selector.match_expressions.push(requirement(part)?);
        }
    }
    if selector.match_labels == BTreeMap::new() && selector.match_expressions.is_empty() {
        return Err("an empty selector would select every pod: if that is meant, give --all".to_owned());
    }
    Ok(selector)
}

/// Splits at the commas that are in no parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

fn equality(part: &str) -> Result<Option<(String, String)>, String> {
    match part.split_once('=') {
        Some((key, _)) if key.ends_with('!') || key.contains('(') => Ok(None),
        Some((key, value)) => Ok(Some((word(key, part)?, value_of(value.strip_prefix('=').unwrap_or(value), part)?))),
        None => Ok(None),
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some((key, value)) = part.split_once("!=") {
        let values = vec![value_of(value, part)?];
        return Ok(Requirement { key: word(key, part)?, operator: Operator::NotIn, values });
    }
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: word(key, part)?, operator: Operator::DoesNotExist, values: Vec::new() });
    }
    let Some((before, values)) = part.split_once('(') else {
        return Ok(Requirement { key: word(part, part)?, operator: Operator::Exists, values: Vec::new() });
    };
    let values = values.strip_suffix(')').ok_or_else(|| wrong(part))?;
    let values = values.split(',').map(|value| value_of(value, part)).collect::<Result<Vec<_>, _>>()?;
    let (key, operator) = match before.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => (key, Operator::In),
        [key, "notin"] => (key, Operator::NotIn),
        _ => return Err(wrong(part)),
    };
    Ok(Requirement { key: word(key, part)?, operator, values })
}

fn word(text: &str, part: &str) -> Result<String, String> {
    let text = value_of(text, part)?;
    if text.is_empty() { Err(wrong(part)) } else { Ok(text) }
}

fn value_of(text: &str, part: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains(|c: char| c.is_whitespace() || "=!(),".contains(c)) {
        Err(wrong(part))
    } else {
        Ok(text.to_owned())
    }
}

fn wrong(part: &str) -> String {
    format!("{part:?} selects nothing: write KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::targets::selector_text;

    #[test]
    fn a_selector_means_what_kubectl_means() {
        for (text, means) in [
            ("app=shop", "app=shop"),
            ("app==shop, tier!=cache", "app=shop,tier notin (cache)"),
            ("zone in (a, b),x notin (c),canary,!old", "zone in (a,b),x notin (c),canary,!old"),
            ("a=", "a="),
            ("a=1,a=2", "a=1,a in (2)"),
            ("app.kubernetes.io/name=shop", "app.kubernetes.io/name=shop"),
        ] {
            assert_eq!(selector(text).map(|selector| selector_text(&selector)), Ok(means.to_owned()), "{text}");
        }
        for text in ["", ",", "=a", "a b", "a in b", "a in (b", "a of (b)", "a=b=c", "!", "a=b)"] {
            assert!(selector(text).is_err(), "{text}");
        }
    }
}
