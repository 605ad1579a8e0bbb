//! No files import each other in a circle.
//!
//! A file imports the file that holds what it names, in a `use` or inline. What a
//! `mod.rs` re-exports, it holds, and imports itself. A `mod x;` alone is no import,
//! nor is a `use` of a module that only gives it a short name: what is named by way
//! of it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    Tested,
    source::{By, Import, Source, Unreadable, read_all, read_src},
};

/// How often a name may stand for another name.
const RENAMED: usize = 8;

/// Which file imports which, and on which line.
struct Graph<'a> {
    /// By module, without test code.
    files: BTreeMap<&'a [String], &'a Source>,
    arrows: BTreeMap<&'a str, BTreeMap<&'a str, usize>>,
}

impl<'a> Graph<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let real = sources.iter().filter(|source| !source.test);
        let files = real.map(|source| (source.module.as_slice(), source)).collect();
        let mut graph = Self { files, arrows: BTreeMap::new() };
        let mut arrows: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for source in graph.files.values() {
            for import in source.imports.iter().filter(|import| !import.test) {
                if let Some(target) = graph.target(source, import).filter(|target| *target != source.file) {
                    arrows.entry(&source.file).or_default().entry(target).or_insert(import.line);
                }
            }
        }
        graph.arrows = arrows;
        graph
    }

    /// The file that this import imports, if it is one of ours.
    fn target(&self, source: &Source, import: &Import) -> Option<&'a str> {
        let path = self.rooted(source, import, RENAMED)?;
        let path = &path[1..];
        let at = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        if at < path.len() || at == 0 {
            return Some(&self.files[&path[..at]].file);
        }
        // The path is that of a module; or of what its parent re-exports by the same name.
        let parent = self.files.get(&path[..at - 1]).filter(|parent| reexports(parent, &path[at - 1]));
        let parent = parent.filter(|parent| parent.file != source.file);
        match (&import.by, parent) {
            (_, Some(parent)) => Some(&parent.file),
            (By::Use { public: false, .. }, None) => None,
            (By::Use { .. } | By::Inline, None) => Some(&self.files[path].file),
        }
    }

    /// The path from the root of the crate, if it is ours: its first name may be one that
    /// the module gives to something, or that of a child.
    fn rooted(&self, source: &Source, import: &Import, renamed: usize) -> Option<Vec<String>> {
        let first = import.path.first()?;
        if first == "crate" {
            return Some(import.path.clone());
        }
        let gives = |other: &&Import| {
            let named = matches!(&other.by, By::Use { name: Some(name), .. } if name == first);
            named && !other.test && other.module == import.module && *other != import
        };
        if let Some(given) = source.imports.iter().find(gives) {
            let whole = self.rooted(source, given, renamed.checked_sub(1)?)?;
            return Some([&whole, &import.path[1..]].concat());
        }
        let child = [&import.module, &import.path[..1]].concat();
        let is_child = self.files.contains_key(child.as_slice());
        is_child.then(|| [&["crate".to_owned()], import.module.as_slice(), &import.path].concat())
    }

    /// The shortest way from one file to another, both included; at least one arrow long.
    fn way(&self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &'a str> = BTreeMap::new();
        let mut next = VecDeque::from([from]);
        while let Some(file) = next.pop_front() {
            for &target in self.arrows.get(file).into_iter().flat_map(BTreeMap::keys) {
                if before.contains_key(target) {
                    continue;
                }
                before.insert(target, file);
                if target == to {
                    let mut way = vec![target];
                    let mut at = file;
                    while at != from {
                        way.push(at);
                        at = before[at];
                    }
                    way.push(from);
                    way.reverse();
                    return Some(way);
                }
                next.push_back(target);
            }
        }
        None
    }

    /// The files that this one imports, directly or not.
    fn reached(&self, from: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            let targets = self.arrows.get(file).into_iter().flat_map(BTreeMap::keys);
            next.extend(targets.filter(|target| reached.insert(**target)).copied());
        }
        reached
    }

    /// Every set of files that all import each other, directly or not.
    fn knots(&self) -> Vec<BTreeSet<&'a str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.arrows.keys().map(|file| (*file, self.reached(file))).collect();
        let mut knots: Vec<BTreeSet<&str>> = Vec::new();
        for (file, others) in &reached {
            let is_known = knots.iter().any(|knot| knot.contains(file));
            if others.contains(file) && !is_known {
                let both_ways = |other: &&str| reached.get(other).is_some_and(|others| others.contains(file));
                knots.push(others.iter().copied().filter(both_ways).collect());
            }
        }
        knots
    }

    /// Each circle in words: one way round, with the line of every arrow, and who else is in the knot.
    fn circles(&self) -> Vec<String> {
        let shortest = |knot: &BTreeSet<&'a str>| {
            knot.iter().filter_map(|file| self.way(file, file)).min_by_key(Vec::len).unwrap_or_default()
        };
        let say = |knot: BTreeSet<&'a str>| {
            let way = shortest(&knot);
            let arrow = |pair: &[&str]| format!("{}:{} -> ", pair[0], self.arrows[pair[0]][pair[1]]);
            let mut words: String = way.windows(2).map(arrow).collect();
            words.extend(way.last().copied());
            let others: Vec<&str> = knot.into_iter().filter(|file| !way.contains(file)).collect();
            if !others.is_empty() {
                words.push_str("; and in circles with these: ");
                words.push_str(&others.join(", "));
            }
            words
        };
        self.knots().into_iter().map(say).collect()
    }
}

/// Whether the file gives others this name by a `use`.
fn reexports(source: &Source, wanted: &str) -> bool {
    let mut uses = source.imports.iter().map(|import| &import.by);
    uses.any(|by| matches!(by, By::Use { name: Some(name), public: true } if name == wanted))
}

#[test]
fn no_files_import_each_other_in_a_circle() -> Tested {
    let sources = read_src()?;
    let graph = Graph::of(&sources);
    assert!(graph.arrows.len() > 100, "only {} files import anything", graph.arrows.len());
    let circles = graph.circles();
    assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
    Ok(())
}

fn check<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<String>, Unreadable> {
    let sources = read_all(files)?;
    Ok(Graph::of(&sources).circles())
}

#[test]
fn a_circle_of_two_is_named_with_its_lines() -> Result<(), Unreadable> {
    let circles = check([
        ("src/core/mod.rs", "mod a;\nmod b;"),
        ("src/core/a.rs", "use super::b::B;\npub struct A;"),
        ("src/core/b.rs", "\nuse crate::core::{\n    a::A,\n};\npub struct B;"),
    ])?;
    assert_eq!(circles, ["src/core/a.rs:1 -> src/core/b.rs:3 -> src/core/a.rs"]);
    Ok(())
}

#[test]
fn a_circle_of_three_is_named_once() -> Result<(), Unreadable> {
    let circles = check([
        ("src/core/a.rs", "use super::b::B;"),
        ("src/core/b.rs", "use super::c::C;"),
        ("src/core/c.rs", "use super::a::A; use super::d::D;"),
        ("src/core/d.rs", "pub struct D;"),
    ])?;
    assert_eq!(circles, ["src/core/a.rs:1 -> src/core/b.rs:1 -> src/core/c.rs:1 -> src/core/a.rs"]);
    Ok(())
}

#[test]
fn all_files_of_a_knot_are_named_and_each_knot_once() -> Result<(), Unreadable> {
    let circles = check([
        ("src/core/a.rs", "use super::b::B;"),
        ("src/core/b.rs", "use super::{a::A, c::C};"),
        ("src/core/c.rs", "use super::b::B;"),
        ("src/wire/a.rs", "use super::b::B; use crate::core::a::A;"),
        ("src/wire/b.rs", "use super::a::A;"),
    ])?;
    let knot = "src/core/a.rs:1 -> src/core/b.rs:1 -> src/core/a.rs; and in circles with these: src/core/c.rs";
    assert_eq!(circles, [knot, "src/wire/a.rs:1 -> src/wire/b.rs:1 -> src/wire/a.rs"]);
    Ok(())
}

#[test]
fn a_circle_through_a_parent_is_found_however_it_is_written() -> Result<(), Unreadable> {
    let child = "use crate::cli::Exit;\npub struct Error;";
    let parents = [
        "mod error;\npub use error::Error;",
        "mod error;\npub use self::error::Error;",
        "mod error;\npub(crate) use error::*;",
        "mod error;\nuse self::error as e;\nfn f() { e::Error::new(); }",
        "mod error;\nuse super::cli::error;\nfn f(_: error::Error) {}",
        "mod error;\nfn f() { error::Error::new(); }",
        "pub mod error;\npub use self::error;",
        "mod error;\nmacro_rules! m { () => { $crate::cli::error::Error } }",
    ];
    for parent in parents {
        let circles = check([("src/cli/mod.rs", parent), ("src/cli/error.rs", child)])?;
        assert_eq!(circles.len(), 1, "{parent}");
    }
    for child in
        ["use super::*;", "use super::Exit;", "fn f() { super::exit(); }", "use crate::cli as c; fn f(_: c::X) {}"]
    {
        let circles = check([("src/cli/mod.rs", "mod error; pub use error::Error;"), ("src/cli/error.rs", child)])?;
        assert_eq!(circles.len(), 1, "{child}");
    }
    Ok(())
}

#[test]
fn a_name_of_both_a_module_and_a_function_is_its_parents() -> Result<(), Unreadable> {
    let circles = check([
        ("src/infra/mod.rs", "mod family;\nmod other;\npub use self::family::family;\npub use self::other::Other;"),
        ("src/infra/family.rs", ""),
        ("src/infra/other.rs", "use super::family;\nfn f() { family(); }"),
    ])?;
    assert_eq!(circles, ["src/infra/mod.rs:4 -> src/infra/other.rs:1 -> src/infra/mod.rs"]);
    Ok(())
}

#[test]
fn a_circle_by_an_inline_path_is_found_also_in_a_program() -> Result<(), Unreadable> {
    let circles = check([
        ("src/core/a.rs", "fn f() { super::b::g(); }"),
        ("src/core/b.rs", "fn g() { log!(crate::core::a::f()); }"),
        ("src/bin/execlet/main.rs", "mod args;\nfn main() { args::parse(); }"),
        ("src/bin/execlet/args.rs", "pub fn parse() { crate::other(); }"),
    ])?;
    let program = "src/bin/execlet/args.rs:1 -> src/bin/execlet/main.rs:2 -> src/bin/execlet/args.rs";
    assert_eq!(circles, [program, "src/core/a.rs:1 -> src/core/b.rs:1 -> src/core/a.rs"]);
    Ok(())
}

#[test]
fn what_is_no_circle_is_let_through() -> Result<(), Unreadable> {
    let trees: [&[(&str, &str)]; 5] = [
        // Only test code goes back.
        &[
            ("src/core/a.rs", "use super::b::B;"),
            ("src/core/b.rs", "#[cfg(test)]\nmod tests { use crate::core::a::A; use super::*; }"),
            ("src/core/b_tests.rs", "use crate::core::a::A;"),
        ],
        // A module is declared, and its children use it.
        &[("src/cli/mod.rs", "pub mod error;\npub struct Exit;"), ("src/cli/error.rs", "use super::Exit;")],
        // A module is given a short name, by which one of its other children is named.
        &[
            ("src/cli/mod.rs", "pub mod a; pub mod b; pub use self::a::A;"),
            ("src/cli/a.rs", "use crate::cli; fn f() { cli::b::g(); }"),
            ("src/cli/b.rs", ""),
        ],
        // The library has a module that is called like that of a program.
        &[
            ("src/bin/execlet/main.rs", "use execlet::agent::run; mod agent;"),
            ("src/bin/execlet/agent.rs", "use crate::main;"),
            ("src/agent/mod.rs", "pub fn run() {}"),
        ],
        // Seeing and mentioning are not importing.
        &[
            ("src/core/a.rs", "use super::b::B;"),
            ("src/core/b.rs", "//! See crate::core::a::A.\npub(in crate::core::a) struct B(&'static str);"),
        ],
    ];
    for files in trees {
        assert_eq!(check(files.iter().copied())?, Vec::<String>::new());
    }
    Ok(())
}
