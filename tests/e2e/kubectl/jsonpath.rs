//! The part of kubectl's `JSONPath` that tests use: fields, indexes, all of a list, and those of a list where a field is so.

use serde_json::Value;

/// A template: words and paths, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Words(String),
    Path(Vec<Step>),
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where(String, String),
}

impl Template {
    /// Nothing, if it has anything else.
    pub fn parse(mut text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        while let Some((words, rest)) = text.split_once('{') {
            let (path, rest) = rest.split_once('}')?;
            pieces.push(Piece::Words(words.to_owned()));
            pieces.push(Piece::Path(steps(path)?));
            text = rest;
        }
        pieces.push(Piece::Words(text.to_owned()));
        Some(Self(pieces))
    }

    /// What kubectl prints of an object. A field that is not there is nothing; an item that is not there is an error.
    pub fn print(&self, object: &Value) -> Result<String, String> {
        let mut printed = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Words(words) => printed += words,
                Piece::Path(steps) => {
                    let found: Vec<String> = found(object, steps)?.into_iter().map(print).collect();
                    printed += &found.join(" ");
                }
            }
        }
        Ok(printed)
    }
}

fn print(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn found<'a>(object: &'a Value, steps: &[Step]) -> Result<Vec<&'a Value>, String> {
    let mut found = vec![object];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            match step {
                Step::Field(name) => next.extend(value.get(name)),
                Step::Index(index) => next.push(items.get(*index).ok_or("error: array index out of bounds")?),
                Step::All => next.extend(items),
                Step::Where(name, wanted) => next.extend(items.iter().filter(|item| item[name] == **wanted)),
            }
        }
        found = next;
    }
    Ok(found)
}

fn steps(mut path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix('[') {
            let (inner, rest) = rest.split_once(']')?;
            steps.push(match inner {
                "*" => Step::All,
                _ => match inner.strip_prefix("?(@.").and_then(|inner| inner.strip_suffix("\")")) {
                    Some(test) => {
                        let (name, wanted) = test.split_once("==\"")?;
                        Step::Where(plain(name)?, wanted.to_owned())
                    }
                    None => Step::Index(inner.parse().ok()?),
                },
            });
            path = rest;
            continue;
        }
        let rest = path.strip_prefix('.')?;
        let (mut name, mut length, mut escaped) = (String::new(), 0, false);
        for c in rest.chars() {
            match c {
                '\\' if !escaped => escaped = true,
                '.' | '[' if !escaped => break,
                c => {
                    name.push(c);
                    escaped = false;
                }
            }
            length += c.len_utf8();
        }
        let dots_only = name.replace('.', "");
        plain(&dots_only)?;
        steps.push(Step::Field(name));
        path = &rest[length..];
    }
    Some(steps)
}

/// A name and nothing else.
fn plain(name: &str) -> Option<String> {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    (!name.is_empty() && name.chars().all(of_a_name)).then(|| name.to_owned())
}

#[test]
fn a_path_gives_what_kubectl_gives() {
    let object = serde_json::json!({
        "metadata": {"annotations": {"execlet.dev/x": "1"}}, "number": 3, "map": {"a": "b"},
        "items": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}, {"type": "A"}],
    });
    for (template, printed) in [
        ("{.number}", "3"),
        ("{.map}", r#"{"a":"b"}"#),
        ("{.map.a}{.number}", "b3"),
        ("a {.map.a} c", "a b c"),
        ("{.nothing.there}", ""),
        ("{.items[*].type}", "A B A"),
        ("{.items[1].status}", "False"),
        (r#"{.items[?(@.type=="A")].status}"#, "True"),
        (r"{.metadata.annotations.execlet\.dev/x}", "1"),
    ] {
        assert_eq!(Template::parse(template).expect(template).print(&object).as_deref(), Ok(printed), "{template}");
    }
    assert!(Template::parse("{.items[3].type}").expect("a template").print(&object).is_err());
    for foreign in ["{range .items[*]}{.type}{end}", r#"{"\n"}"#, "{.items[?(@.a.b==\"c\")]}", "{..type}", "{.a"] {
        assert_eq!(Template::parse(foreign), None, "{foreign}");
    }
}
