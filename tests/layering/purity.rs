//! The inner modules know no IO, no clock and no runtime; and one file alone has an `unsafe` block.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{TokenStream, TokenTree};

use crate::{
    Tested,
    source::{Import, Source, Unreadable, read_all, read_src},
};

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

/// The one file that may have an `unsafe` block.
const UNSAFE_FILE: &str = "src/infra/process/exit.rs";

/// What breaks the rule, one line each. `crates` are those of `Cargo.toml`.
fn violations(source: &Source, crates: &BTreeSet<String>) -> Vec<String> {
    let layer = source.module.first().map_or("", String::as_str);
    if !PURE.contains(&layer) {
        return Vec::new();
    }
    let line = |import: &Import| {
        let reason = impurity(layer, crates, import)?;
        Some(format!("{}:{}: {}: {reason}", source.file, import.line, import.path.join("::")))
    };
    source.imports.iter().filter(|import| !import.test).filter_map(line).collect()
}

fn impurity(layer: &str, crates: &BTreeSet<String>, import: &Import) -> Option<String> {
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

fn says_unsafe(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "unsafe" || word == "unsafe_code",
        TokenTree::Group(group) => says_unsafe(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[test]
fn the_inner_modules_are_pure() -> Tested {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))?;
    let crates = dependencies(&manifest);
    assert!(crates.contains("tokio") && crates.contains("k8s_openapi"), "{crates:?}");
    let sources = read_src()?;
    let wrong: Vec<String> = sources.iter().flat_map(|source| violations(source, &crates)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn one_file_alone_is_let_off_the_ban_on_unsafe_code() -> Tested {
    let mut found = Vec::new();
    for source in read_src()? {
        if says_unsafe(source.text.parse()?) {
            found.push(source.file);
        }
    }
    assert_eq!(found, [UNSAFE_FILE]);
    Ok(())
}

fn check(file: &str, text: &str) -> Result<Vec<String>, Unreadable> {
    let crates = ["tokio", "kube", "jiff", "bollard", "hyper"].map(str::to_owned).into();
    Ok(read_all([(file, text)])?.iter().flat_map(|source| violations(source, &crates)).collect())
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
fn what_is_pure_is_let_through() -> Result<(), Unreadable> {
    let sources = [
        ("src/core/a.rs", "use kube::CustomResource; use std::time::Duration; pub(crate) fn now() {}"),
        ("src/core/a.rs", "fn f(now: Timestamp) -> bool { situation.now < now }"),
        ("src/core/a.rs", "#[cfg(test)] mod tests { use std::fs; use super::*; fn f() { Timestamp::now(); } }"),
        ("src/core/a_tests.rs", "use std::fs; use super::*;"),
        ("src/agent/a.rs", "use tokio::fs;"),
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
