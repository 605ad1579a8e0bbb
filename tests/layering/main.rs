//! Holds the direction of imports and the purity of the inner modules: see `ARCHITECTURE.md`.
//!
//! Sources are read as tokens, so comments and strings are no imports, and paths
//! inside macros are. Every path is resolved against the module that it stands
//! in: `super::super::agent` is found as well as `crate::agent`.

use std::{
    collections::BTreeSet,
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Who may import whom. A module may always import itself.
const LAYERS: [(&str, &[&str]); 8] = [
    ("api", &[]),
    ("core", &["api"]),
    ("wire", &[]),
    ("engine", &["api", "core", "wire"]),
    ("infra", &["api", "core", "wire"]),
    ("agent", &["api", "core", "wire", "engine", "infra"]),
    ("manager", &["api", "core", "wire", "infra"]),
    ("cli", &["api", "core", "wire", "infra"]),
];

/// Modules that know no IO, no clock and no runtime.
const PURE: [&str; 3] = ["api", "core", "wire"];
/// The crates that they may use, of all in `Cargo.toml`; a new one has to be let in here.
const PURE_CRATES: [&str; 11] = [
    "base64",
    "bytes",
    "k8s_openapi",
    "kube",
    "memchr",
    "schemars",
    "serde",
    "serde_json",
    "serde_yaml_ng",
    "sha2",
    "thiserror",
];
/// What they may not use of the crates that they may, and of the standard library.
const IMPURE: [&str; 11] = [
    "kube::Api",
    "kube::Client",
    "kube::Config",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
];
/// Types that tell the time; and any `x::now` does.
const CLOCKS: [&str; 2] = ["std::time::Instant", "std::time::SystemTime"];

/// The crate that speaks to the engine, and the one file that may name it.
const ENGINE_CRATE: &str = "bollard";
const ENGINE_FILE: &str = "src/engine/docker/mod.rs";

/// One path in a source: where it leads, on which line, and whether in test code.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    path: Vec<String>,
    line: usize,
    test: bool,
}

/// One file below `src/`.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreadable {}

impl Source<'_> {
    /// The path of the module that the file holds; empty for the root of the crate.
    fn module(&self) -> Vec<String> {
        let path = self.file.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
        match module.last().map(String::as_str) {
            Some("mod" | "lib") => drop(module.pop()),
            // `foo_tests.rs` is the module `tests` of `foo.rs`, by `#[path]`.
            Some(name) if self.is_test() => {
                let tested = name.trim_end_matches("_tests").to_owned();
                module.pop();
                module.extend([tested, "tests".to_owned()]);
            }
            Some(_) | None => {}
        }
        module
    }

    fn is_test(&self) -> bool {
        self.file.ends_with("_tests.rs")
    }

    fn imports(&self) -> Result<Vec<Import>, Unreadable> {
        let tokens: TokenStream = self.text.parse().map_err(|error| Unreadable(format!("{}: {error}", self.file)))?;
        let mut found = Vec::new();
        let module = self.module();
        walk(tokens, &Place { module: &module, test: self.is_test() }, &mut found);
        Ok(found)
    }

    /// What breaks a rule, one line each. `crates` are those of `Cargo.toml`.
    fn violations(&self, crates: &BTreeSet<String>) -> Result<Vec<String>, Unreadable> {
        let layer = self.module().first().cloned().unwrap_or_default();
        let allowed = LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, allowed)| *allowed);
        let mut wrong = Vec::new();
        for import in self.imports()? {
            let reason = if import.path.first().is_some_and(|name| name == ENGINE_CRATE) && self.file != ENGINE_FILE {
                Some(format!("only {ENGINE_FILE} may name {ENGINE_CRATE}"))
            } else if let Some(allowed) = allowed {
                direction(&layer, allowed, &import).or_else(|| purity(&layer, crates, &import))
            } else {
                None
            };
            if let Some(reason) = reason {
                wrong.push(format!("{}:{}: {}: {reason}", self.file, import.line, import.path.join("::")));
            }
        }
        Ok(wrong)
    }
}

fn direction(layer: &str, allowed: &[&str], import: &Import) -> Option<String> {
    let (root, rest) = import.path.split_first()?;
    if root != "crate" {
        return None;
    }
    let Some(target) = rest.first() else {
        return Some("imports the whole crate: name the module".to_owned());
    };
    if target == "*" {
        return Some("imports the whole crate: name the module".to_owned());
    }
    let known = LAYERS.iter().any(|(name, _)| name == target);
    let fine = target == layer || allowed.contains(&target.as_str());
    (known && !fine).then(|| format!("{layer} may import {allowed:?} of ours and itself, not {target}"))
}

fn purity(layer: &str, crates: &BTreeSet<String>, import: &Import) -> Option<String> {
    if import.test || !PURE.contains(&layer) {
        return None;
    }
    let first = import.path.first()?;
    if crates.contains(first) && !PURE_CRATES.contains(&first.as_str()) {
        return Some(format!("{layer} is pure: it may not use the crate {first}"));
    }
    if import.path.len() > 1 && import.path.last().is_some_and(|name| name == "now") {
        return Some(format!("{layer} is pure: it is told the time"));
    }
    let is_in = |whole: &&&str| {
        let parts: Vec<&str> = whole.split("::").collect();
        let of_import = import.path.iter().map(String::as_str).take(parts.len());
        import.path.len() >= parts.len() && of_import.eq(parts.iter().copied())
    };
    let impure = IMPURE.iter().chain(&CLOCKS).find(is_in)?;
    Some(format!("{layer} is pure: it may not use {impure}"))
}

/// Where in a file: the module, with those inside the file, and whether it is test code.
struct Place<'a> {
    module: &'a [String],
    test: bool,
}

/// Collects every path in the tokens.
fn walk(tokens: TokenStream, place: &Place<'_>, found: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    // An attribute `#[cfg(test)]` holds to the end of the item that follows it.
    let mut next_is_test = false;
    while at < tokens.len() {
        let test = place.test || next_is_test;
        let here = Place { module: place.module, test };
        match &tokens[at] {
            TokenTree::Punct(mark) if mark.as_char() == '#' && is_cfg_test(tokens.get(at + 1)) => {
                next_is_test = true;
                at += 2;
            }
            TokenTree::Ident(word) if word == "use" => {
                let end = (at..tokens.len()).find(|i| is_mark(tokens.get(*i), ';')).unwrap_or(tokens.len());
                tree(&tokens[at + 1..end], &[], &here, found);
                next_is_test = false;
                at = end + 1;
            }
            TokenTree::Ident(word) if word == "mod" && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_))) => {
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    let module = [place.module, &[tokens[at + 1].to_string()]].concat();
                    walk(body.stream(), &Place { module: &module, test }, found);
                }
                next_is_test = false;
                at += 3;
            }
            TokenTree::Ident(word) => {
                let (path, after) = chain(&tokens, at);
                if path.len() > 1 {
                    let line = word.span().start().line;
                    found.push(Import { path: resolve(&path, place.module), line, test });
                }
                at = after;
            }
            TokenTree::Group(group) => {
                walk(group.stream(), &here, found);
                next_is_test &= group.delimiter() != Delimiter::Brace;
                at += 1;
            }
            mark @ TokenTree::Punct(_) => {
                next_is_test &= !is_mark(Some(mark), ';');
                at += 1;
            }
            TokenTree::Literal(_) => at += 1,
        }
    }
}

/// A tree of a `use`, without the word and the semicolon.
fn tree(tokens: &[TokenTree], prefix: &[String], place: &Place<'_>, found: &mut Vec<Import>) {
    for branch in tokens.split(|token| is_mark(Some(token), ',')) {
        let mut path = prefix.to_vec();
        let mut line = None;
        let mut whole = true;
        for token in branch {
            line.get_or_insert_with(|| token.span().start().line);
            match token {
                // The name after `as` is nobody else's.
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    tree(&inner, &path, place, found);
                    whole = false;
                }
                mark if is_mark(Some(mark), '*') => path.push("*".to_owned()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if let (true, Some(line)) = (whole, line) {
            found.push(Import { path: resolve(&path, place.module), line, test: place.test });
        }
    }
}

/// The names joined by `::` from here on, and the index of what follows them.
fn chain(tokens: &[TokenTree], from: usize) -> (Vec<String>, usize) {
    let mut path = vec![tokens[from].to_string()];
    let mut at = from + 1;
    while is_mark(tokens.get(at), ':') && is_mark(tokens.get(at + 1), ':') {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(word)) => path.push(word.to_string()),
            _ => break,
        }
        at += 3;
    }
    (path, at)
}

/// A path of ours as seen from the root of the crate; any other as it is.
fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let base = match path.first().map(String::as_str) {
        Some("self") => return [&["crate".to_owned()], module, &path[1..]].concat(),
        Some("super") => &module[..module.len().saturating_sub(ups)],
        // From the root already, or not ours.
        Some(_) | None => return path.to_vec(),
    };
    [&["crate".to_owned()], base, &path[ups..]].concat()
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    group.delimiter() == Delimiter::Bracket && group.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// The crates under `[dependencies]`, as paths name them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"))
        .collect()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, into)?;
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn check(file: &str, text: &str) -> Result<Vec<String>, Unreadable> {
    let crates = ["tokio", "kube", "jiff", "bollard", "hyper"].map(str::to_owned).into();
    Source { file, text }.violations(&crates)
}

#[test]
fn arrows_point_down_only() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = dependencies(&fs::read_to_string(root.join("Cargo.toml"))?);
    assert!(crates.contains("tokio") && crates.contains("k8s_openapi"), "{crates:?}");
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files)?;
    let mut wrong = Vec::new();
    let mut layers = BTreeSet::new();
    for path in files {
        let text = fs::read_to_string(&path)?;
        let file = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let source = Source { file: &file, text: &text };
        layers.extend(source.module().first().cloned());
        wrong.extend(source.violations(&crates)?);
    }
    for (layer, _) in LAYERS {
        assert!(layers.contains(layer), "there is no module {layer}: take it out of LAYERS");
    }
    let unknown: Vec<&String> =
        layers.iter().filter(|layer| *layer != "bin" && !LAYERS.iter().any(|(name, _)| name == layer)).collect();
    assert!(unknown.is_empty(), "{unknown:?} has no place in LAYERS");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

/// The one file that may have an `unsafe` block.
const UNSAFE_FILE: &str = "src/infra/process/exit.rs";

fn says_unsafe(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "unsafe" || word == "unsafe_code",
        TokenTree::Group(group) => says_unsafe(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[test]
fn one_file_alone_is_let_off_the_ban_on_unsafe_code() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files)?;
    let mut found = Vec::new();
    for path in files {
        if says_unsafe(fs::read_to_string(&path)?.parse()?) {
            found.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    assert_eq!(found, [UNSAFE_FILE]);
    Ok(())
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() -> Result<(), Unreadable> {
    let sources = [
        ("src/core/a.rs", "use crate::engine::Engine;"),
        ("src/core/a.rs", "use crate::{\n    api::Reason,\n    infra::{clock::Clock, events},\n};"),
        ("src/core/a.rs", "use crate::{api::{self, Reason}, infra as tools};"),
        ("src/core/a.rs", "fn f() { crate::infra::process::find(1); }"),
        ("src/core/a.rs", "fn f() { tracing::info!(x = crate::infra::process::find(1)); }"),
        ("src/core/a.rs", "use super::super::infra::clock;"),
        ("src/core/a.rs", "mod inner { use super::super::super::infra::clock; }"),
        ("src/core/mod.rs", "use super::agent;"),
        ("src/core/a.rs", "#[cfg(test)] mod tests { use crate::engine::Engine; }"),
        ("src/core/a_tests.rs", "use super::super::super::engine::Engine;"),
        ("src/core/a.rs", "use crate::*;"),
        ("src/core/a.rs", "use crate as all;"),
        ("src/core/a.rs", "use crate::{self as all};"),
        ("src/api/a.rs", "use crate::core::ids::Uid;"),
        ("src/wire/a.rs", "use crate::api::Reason;"),
        ("src/engine/a.rs", "use crate::infra::clock;"),
        ("src/infra/a.rs", "use crate::engine::Engine;"),
        ("src/agent/a.rs", "use crate::manager::Config;"),
        ("src/manager/a.rs", "use crate::agent::Config;"),
        ("src/manager/a.rs", "use crate::engine::Engine;"),
        ("src/agent/a.rs", "use bollard::Docker;"),
        ("src/bin/execlet/main.rs", "fn f(_: bollard::Docker) {}"),
        ("src/engine/mod.rs", "use bollard::Docker;"),
    ];
    for (file, text) in sources {
        assert!(!check(file, text)?.is_empty(), "{file}: {text}");
    }
    Ok(())
}

#[test]
fn impurity_is_found_however_it_is_written() -> Result<(), Unreadable> {
    let sources = [
        "use tokio::time::sleep;",
        "fn f() { tokio::spawn(g()); }",
        "use hyper::Method;",
        "use kube::{CustomResource, Client};",
        "use kube::runtime::watcher;",
        "use std::{fmt, fs};",
        "use std::net;",
        "fn f() { std::env::var(\"HOME\"); }",
        "use std::time::{Duration, Instant};",
        "fn f() -> Timestamp { Timestamp::now() }",
        "fn f() -> T { jiff::Timestamp::now() }",
    ];
    for layer in PURE {
        for text in sources {
            assert!(!check(&format!("src/{layer}/a.rs"), text)?.is_empty(), "{layer}: {text}");
        }
    }
    Ok(())
}

#[test]
fn what_is_allowed_is_let_through() -> Result<(), Unreadable> {
    let sources = [
        ("src/core/a.rs", "use super::ids; use self::x; use crate::{api::Reason, core::ids::Uid};"),
        ("src/core/a.rs", "// use crate::agent;\nconst A: &str = \"crate::agent\"; /// crate::agent\nfn f() {}"),
        ("src/core/a.rs", "use kube::CustomResource; use std::time::Duration; pub(crate) fn now() {}"),
        ("src/core/a.rs", "fn f(now: Timestamp) -> bool { situation.now < now }"),
        ("src/core/a.rs", "#[cfg(test)] mod tests { use std::fs; use super::*; fn f() { Timestamp::now(); } }"),
        ("src/core/a_tests.rs", "use std::fs; use super::*;"),
        ("src/agent/a.rs", "use crate::{api, core::ids, engine::Engine, infra::clock, wire}; use tokio::fs;"),
        ("src/engine/docker/mod.rs", "use bollard::Docker;"),
        ("src/bin/execlet/main.rs", "use execlet::{agent, manager}; use self::args::Args;"),
    ];
    for (file, text) in sources {
        assert_eq!(check(file, text)?, Vec::<String>::new(), "{file}: {text}");
    }
    Ok(())
}

#[test]
fn only_the_item_after_cfg_test_is_test_code() -> Result<(), Unreadable> {
    let text = "#[cfg(test)] use std::fs;\n#[cfg(test)] #[path = \"a_tests.rs\"] mod tests;\nuse std::net;";
    let wrong = check("src/core/a.rs", text)?;
    assert_eq!(wrong, ["src/core/a.rs:3: std::net: core is pure: it may not use std::net"]);
    let text = "#[cfg(test)] impl A { fn f() { std::fs::read(); } }\nfn g() { std::fs::read(); }";
    assert_eq!(check("src/core/a.rs", text)?.len(), 1);
    Ok(())
}

#[test]
fn dependencies_are_read_from_the_manifest() {
    let manifest =
        "[package]\nname = \"x\"\n[dependencies]\n# why\nk8s-openapi = \"1\"\n\n[dev-dependencies]\ntempfile = \"3\"\n";
    assert_eq!(dependencies(manifest), BTreeSet::from(["k8s_openapi".to_owned()]));
}
