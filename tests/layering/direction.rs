//! Who may import whom, and who may name the engine.

use std::collections::BTreeSet;

use crate::{
    Tested,
    source::{Import, Source, Unreadable, read_all, read_src},
};

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

/// One engine: its module below `engine`, and the crate that speaks to it. Besides the engine's own room only programs
/// may name the module, which choose the engine.
struct EngineRoom {
    module: &'static str,
    client: &'static str,
}

const ENGINES: [EngineRoom; 2] =
    [EngineRoom { module: "docker", client: "bollard" }, EngineRoom { module: "containerd", client: "tonic" }];
const PROGRAMS: &str = "src/bin/";

/// What breaks a rule, one line each.
fn violations(source: &Source) -> Vec<String> {
    let reason = |import: &Import| engine(&source.file, import).or_else(|| direction(source, import));
    let line = |import: &Import| {
        let reason = reason(import)?;
        Some(format!("{}:{}: {}: {reason}", source.file, import.line, import.path.join("::")))
    };
    source.imports.iter().filter_map(line).collect()
}

fn engine(file: &str, import: &Import) -> Option<String> {
    ENGINES.iter().find_map(|EngineRoom { module, client }| {
        let room = format!("src/engine/{module}/");
        if file.starts_with(&room) {
            return None;
        }
        if import.path.first().is_some_and(|name| name == client) {
            return Some(format!("only {room} may name {client}"));
        }
        let names_room = import.path.starts_with(&["crate", "engine", module].map(str::to_owned));
        // `use docker::X` in `src/engine/mod.rs` means its child.
        let names_child = import.module == ["engine"] && import.path.first().is_some_and(|name| name == module);
        // A test of what is common to all engines may take the framing of one.
        let forbidden = (names_room || names_child) && !file.starts_with(PROGRAMS) && !import.test;
        forbidden.then(|| format!("only {PROGRAMS} and itself may name {room}"))
    })
}

fn direction(source: &Source, import: &Import) -> Option<String> {
    let layer = source.module.first()?;
    let (_, allowed) = LAYERS.iter().find(|(name, _)| name == layer)?;
    let (root, rest) = import.path.split_first()?;
    if root != "crate" {
        return None;
    }
    let Some(target) = rest.first().filter(|target| *target != "*") else {
        return Some("imports the whole crate: name the module".to_owned());
    };
    let known = LAYERS.iter().any(|(name, _)| name == target);
    let fine = target == layer || allowed.contains(&target.as_str());
    (known && !fine).then(|| format!("{layer} may import {allowed:?} of ours and itself, not {target}"))
}

#[test]
fn arrows_point_down_only() -> Tested {
    let sources = read_src()?;
    let layers: BTreeSet<&String> = sources.iter().filter_map(|source| source.module.first()).collect();
    for (layer, _) in LAYERS {
        assert!(layers.iter().any(|name| *name == layer), "there is no module {layer}: take it out of LAYERS");
    }
    let unknown: Vec<_> =
        layers.iter().filter(|layer| **layer != "bin" && !LAYERS.iter().any(|(name, _)| name == *layer)).collect();
    assert!(unknown.is_empty(), "{unknown:?} has no place in LAYERS");
    let wrong: Vec<String> = sources.iter().flat_map(violations).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn check(file: &str, text: &str) -> Result<Vec<String>, Unreadable> {
    Ok(read_all([(file, text)])?.iter().flat_map(violations).collect())
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
        ("src/engine/mod.rs", "pub mod docker;\npub use self::docker::DockerEngine;"),
        ("src/engine/mod.rs", "pub mod docker;\nuse docker::DockerEngine;"),
        ("src/engine/stream.rs", "use super::docker::frames::Decoder;"),
        ("src/agent/a.rs", "use crate::engine::{Engine, docker};"),
        ("src/agent/a.rs", "fn f() { crate::engine::docker::DockerEngine::new(); }"),
    ];
    for (file, text) in sources {
        assert!(!check(file, text)?.is_empty(), "{file}: {text}");
    }
    Ok(())
}

#[test]
fn what_is_allowed_is_let_through() -> Result<(), Unreadable> {
    let sources = [
        ("src/core/a.rs", "use super::ids; use self::x; use crate::{api::Reason, core::ids::Uid};"),
        ("src/core/a.rs", "// use crate::agent;\nconst A: &str = \"crate::agent\"; /// crate::agent\nfn f() {}"),
        ("src/agent/a.rs", "use crate::{api, core::ids, engine::Engine, infra::clock, wire}; use tokio::fs;"),
        ("src/engine/mod.rs", "pub mod docker;"),
        ("src/engine/docker/mod.rs", "use bollard::Docker; use super::docker::frames::Decoder;"),
        ("src/bin/execlet/main.rs", "use execlet::{agent, engine::docker::DockerEngine}; use self::args::Args;"),
    ];
    for (file, text) in sources {
        assert_eq!(check(file, text)?, Vec::<String>::new(), "{file}: {text}");
    }
    Ok(())
}
