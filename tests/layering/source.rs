//! Reads sources as tokens, so that comments and strings are no imports and
//! paths inside macros are.
//!
//! Every path is resolved against the module it stands in: `super::super::agent`
//! is found as well as `crate::agent`. Programs below `src/bin/` are crates of
//! their own: their modules are named `crate::bin::<program>` here.

use std::{
    error::Error,
    fmt, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The library, as the programs name it.
const LIBRARY: &str = "execlet";

/// One path in a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    /// From the root of the crate, if it says so or is relative; else as written.
    pub path: Vec<String>,
    pub line: usize,
    /// Whether it stands in test code.
    pub test: bool,
    /// The module it stands in.
    pub module: Vec<String>,
    pub by: By,
}

/// How a path is written.
#[derive(Debug, PartialEq, Eq)]
pub enum By {
    /// In the midst of code.
    Inline,
    /// `use`, with the name it is given, which a glob does not have.
    Use { name: Option<String>, public: bool },
}

pub struct Function {
    pub name: String,
    pub lines: RangeInclusive<usize>,
}

/// One file below `src/`.
pub struct Source {
    pub file: String,
    pub text: String,
    /// The module that the file holds; empty for the root of the library.
    pub module: Vec<String>,
    /// Whether all of it is test code.
    pub test: bool,
    pub imports: Vec<Import>,
    pub functions: Vec<Function>,
    test_lines: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own that are declared below `#[cfg(test)]`.
    test_modules: Vec<Vec<String>>,
}

#[derive(Debug)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreadable {}

impl Source {
    fn read(file: &str, text: &str) -> Result<Self, Unreadable> {
        let tokens: TokenStream = text.parse().map_err(|error| Unreadable(format!("{file}: {error}")))?;
        let module = module_of(file);
        let mut source = Self {
            file: file.to_owned(),
            text: text.to_owned(),
            test: is_test_file(file),
            module: module.clone(),
            imports: Vec::new(),
            functions: Vec::new(),
            test_lines: Vec::new(),
            test_modules: Vec::new(),
        };
        let root = if module.first().is_some_and(|name| name == "bin") { &module[..2] } else { &[] };
        let place = Place { module: &module, root, test: source.test };
        walk(tokens, &place, &mut source);
        Ok(source)
    }

    pub fn is_test_line(&self, line: usize) -> bool {
        self.test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }
}

/// Reads these files as if they were the whole of `src/`.
pub fn read_all<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<Source>, Unreadable> {
    let mut sources: Vec<Source> =
        files.into_iter().map(|(file, text)| Source::read(file, text)).collect::<Result<_, _>>()?;
    let test_modules: Vec<Vec<String>> =
        sources.iter_mut().flat_map(|source| source.test_modules.split_off(0)).collect();
    for source in &mut sources {
        if test_modules.iter().any(|module| source.module.starts_with(module)) {
            source.test = true;
            source.imports.iter_mut().for_each(|import| import.test = true);
        }
    }
    Ok(sources)
}

/// Everything below `src/`.
pub fn read_src() -> Result<Vec<Source>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    rust_files(&root.join("src"), &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        files.push((path.strip_prefix(root)?.to_string_lossy().into_owned(), fs::read_to_string(&path)?));
    }
    Ok(read_all(files.iter().map(|(file, text)| (file.as_str(), text.as_str())))?)
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

fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    match module.last().map(String::as_str) {
        Some("mod" | "lib" | "main") => drop(module.pop()),
        // `foo_tests.rs` is the module `tests` of `foo.rs`, by `#[path]`.
        Some(name) if name.ends_with("_tests") => {
            let tested = name.trim_end_matches("_tests").to_owned();
            module.pop();
            module.extend([tested, "tests".to_owned()]);
        }
        Some(_) | None => {}
    }
    module
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("_tests.rs") || file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// Where in a file: the module, with those inside the file, the root of its crate, and whether it is test code.
struct Place<'a> {
    module: &'a [String],
    root: &'a [String],
    test: bool,
}

impl Place<'_> {
    /// A path of ours as seen from the root of the library; any other as it is.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let base = match path.first().map(String::as_str) {
            Some("crate") => return [&["crate".to_owned()], self.root, &path[1..]].concat(),
            Some("self") => return [&["crate".to_owned()], self.module, &path[1..]].concat(),
            Some("super") => &self.module[..self.module.len().saturating_sub(ups)],
            Some(LIBRARY) if !self.root.is_empty() => return [&["crate".to_owned()], &path[1..]].concat(),
            // Not ours, or a name that the module itself has.
            Some(_) | None => return path.to_vec(),
        };
        [&["crate".to_owned()], base, &path[ups..]].concat()
    }

    fn import(&self, path: &[String], line: usize, by: By) -> Import {
        Import { path: self.resolve(path), line, test: self.test, module: self.module.to_vec(), by }
    }
}

/// Collects every path and function in the tokens.
fn walk(tokens: TokenStream, place: &Place<'_>, source: &mut Source) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    // The line of an attribute `#[cfg(test)]`, which holds to the end of the item that follows it.
    let mut test_from = None;
    while at < tokens.len() {
        let here = Place { test: place.test || test_from.is_some(), ..*place };
        let (next, item_ends) = step(&tokens, at, &here, source);
        if is_mark(tokens.get(at), '#') && is_cfg_test(tokens.get(at + 1)) {
            test_from.get_or_insert(line_of(&tokens[at]));
        } else if item_ends && let Some(from) = test_from.take() {
            source.test_lines.push(from..=last_line(&tokens[next.min(tokens.len()) - 1]));
        }
        at = next;
    }
}

/// Takes what begins at this token: gives the index of what follows, and whether an item ends here.
fn step(tokens: &[TokenTree], at: usize, here: &Place<'_>, source: &mut Source) -> (usize, bool) {
    match &tokens[at] {
        TokenTree::Ident(word) if word == "use" && !is_mark(tokens.get(at + 1), '<') => {
            let end = (at..tokens.len()).find(|i| is_mark(tokens.get(*i), ';')).unwrap_or(tokens.len());
            tree(&tokens[at + 1..end], &[], is_public(&tokens[..at]), here, &mut source.imports);
            (end + 1, true)
        }
        TokenTree::Ident(word) if word == "mod" && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_))) => {
            let module = [here.module, &[tokens[at + 1].to_string()]].concat();
            if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                walk(body.stream(), &Place { module: &module, ..*here }, source);
            } else if here.test {
                source.test_modules.push(module);
            }
            (at + 3, true)
        }
        // `pub(in a::b)` names who may see it and imports nothing.
        TokenTree::Ident(word) if word == "pub" && is_group(tokens.get(at + 1), Delimiter::Parenthesis) => {
            (at + 2, false)
        }
        TokenTree::Ident(word) => {
            if word == "fn" {
                source.functions.extend(function(&tokens[at..]));
            }
            let (path, after) = chain(tokens, at);
            if path.len() > 1 {
                source.imports.push(here.import(&path, word.span().start().line, By::Inline));
            }
            (after, false)
        }
        TokenTree::Group(group) => {
            walk(group.stream(), here, source);
            (at + 1, group.delimiter() == Delimiter::Brace)
        }
        mark @ TokenTree::Punct(_) => (at + 1, is_mark(Some(mark), ';')),
        TokenTree::Literal(_) => (at + 1, false),
    }
}

/// A tree of a `use`, without the word and the semicolon.
fn tree(tokens: &[TokenTree], prefix: &[String], public: bool, place: &Place<'_>, found: &mut Vec<Import>) {
    for branch in tokens.split(|token| is_mark(Some(token), ',')) {
        let mut path = prefix.to_vec();
        let mut name = None;
        let mut whole = true;
        for (at, token) in branch.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = branch.get(at + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    tree(&inner, &path, public, place, found);
                    whole = false;
                }
                mark if is_mark(Some(mark), '*') => path.push("*".to_owned()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if let (true, Some(first)) = (whole, branch.first()) {
            let name = name.or_else(|| path.last().cloned()).filter(|name| name != "*");
            found.push(place.import(&path, line_of(first), By::Use { name, public }));
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

/// The function that begins at the word `fn`, if it has a name and a body.
fn function(tokens: &[TokenTree]) -> Option<Function> {
    let Some(TokenTree::Ident(name)) = tokens.get(1) else { return None };
    let end = tokens.iter().find(|token| is_mark(Some(token), ';') || is_group(Some(token), Delimiter::Brace))?;
    let lines = line_of(&tokens[0])..=last_line(end);
    is_group(Some(end), Delimiter::Brace).then(|| Function { name: name.to_string(), lines })
}

/// Whether these tokens end with a visibility: of a name that others may use too.
fn is_public(before: &[TokenTree]) -> bool {
    let word = match before {
        [.., word, group] if is_group(Some(group), Delimiter::Parenthesis) => Some(word),
        [.., word] => Some(word),
        [] => None,
    };
    matches!(word, Some(TokenTree::Ident(word)) if word == "pub")
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}

fn last_line(token: &TokenTree) -> usize {
    token.span().end().line
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    group.delimiter() == Delimiter::Bracket && group.stream().to_string().replace(' ', "") == "cfg(test)"
}

#[test]
fn a_file_that_is_declared_as_a_test_is_one() -> Result<(), Unreadable> {
    let sources = read_all([
        ("src/cli/mod.rs", "#[cfg(test)]\npub(crate) mod scripted;\nmod real;"),
        ("src/cli/scripted.rs", "use super::real;"),
        ("src/cli/real.rs", ""),
        ("src/cli/real_tests.rs", ""),
        ("src/wire/tests.rs", ""),
    ])?;
    let tests: Vec<bool> = sources.iter().map(|source| source.test).collect();
    assert_eq!(tests, [false, true, false, true, true]);
    assert!(sources[1].imports[0].test);
    Ok(())
}

#[test]
fn the_lines_of_test_code_are_known() -> Result<(), Unreadable> {
    let text = "fn a() {}\n#[cfg(test)]\nimpl A {\n}\nfn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    let source = Source::read("src/core/a.rs", text)?;
    let lines: Vec<usize> = (1..=9).filter(|line| source.is_test_line(*line)).collect();
    assert_eq!(lines, [2, 3, 4, 6, 7, 8, 9]);
    Ok(())
}

#[test]
fn who_may_see_an_item_is_no_import() -> Result<(), Unreadable> {
    let source = Source::read("src/core/a.rs", "pub(in crate::core) fn f(g: impl Fn() + use<'_>) { x.y(); }")?;
    assert_eq!(source.imports, []);
    Ok(())
}
