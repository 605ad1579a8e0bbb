//! Only the rooms of an engine know facts of that engine.
//!
//! Everything else speaks of "the engine", so that another engine can be added
//! without a change to it. Lines are searched as text: code, strings and comments,
//! without test code.

use crate::{
    Tested,
    source::{Source, Unreadable, read_all, read_src},
};

/// The rooms that may know one engine: their own.
const ROOMS: [&str; 2] = ["src/engine/docker/", "src/engine/containerd/"];

enum Fact {
    /// This text, also with a capital.
    Text(&'static str),
    /// This number, not as part of another or of an address.
    Number(&'static str),
    /// The length of a container's ID.
    IdLength,
    /// An HTTP status of the engine's API.
    Status,
}

const FACTS: [(Fact, &str); 12] = [
    (Fact::Text("docker"), "the name of one engine"),
    (Fact::Text("moby"), "the name of one engine"),
    (Fact::Text("containerd"), "the name of one engine"),
    (Fact::Text("bollard"), "the client of one engine"),
    (Fact::Text("exec_die"), "an event of one engine: say what has happened"),
    (Fact::Number("126"), "a code that one engine leaves where it has none: the engine's room marks it as doubtful"),
    (Fact::Number("127"), "a code that one engine leaves where it has none: the engine's room marks it as doubtful"),
    (Fact::Text("64 hex"), "the form of one engine's IDs"),
    (Fact::Text("64-hex"), "the form of one engine's IDs"),
    (Fact::Text("64-digit"), "the form of one engine's IDs"),
    (Fact::IdLength, "the form of one engine's IDs"),
    (Fact::Status, "how one engine's API refuses: say what it means"),
];

/// Numbers that are an HTTP status in a line about the engine.
const STATUSES: [&str; 6] = ["400", "404", "409", "500", "501", "503"];

struct Exception {
    /// A file, or a folder with all that is in it.
    file: &'static str,
    /// What a line may say there, also with a capital; the rest of the line may not.
    text: &'static str,
    #[expect(dead_code, reason = "for the reader")]
    why: &'static str,
}

const EXCEPTIONS: [Exception; 6] = [
    Exception { file: "src/bin/execlet/", text: "containerd", why: "chooses and builds the engine" },
    Exception { file: "src/bin/execlet/", text: "docker", why: "chooses and builds the engine" },
    Exception { file: "src/engine/mod.rs", text: "pub mod docker;", why: "declares the engine's room" },
    Exception { file: "src/engine/mod.rs", text: "pub mod containerd;", why: "declares the engine's room" },
    Exception {
        file: "src/cli/exit.rs",
        text: "Self(126)",
        why: "a shell's code for a command that cannot be started",
    },
    Exception {
        file: "src/cli/follow/detach.rs",
        text: "docker",
        why: "the keys that users know from the command line `docker`, whatever engine runs",
    },
];

impl Fact {
    fn is_in(&self, file: &str, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text) || line.contains(&capitalized(text)),
            Self::Number(number) => has_number(line, number),
            Self::IdLength => line.to_lowercase().contains("container") && has_number(line, "64"),
            Self::Status => {
                let of_engine = file.starts_with("src/engine/") || line.to_lowercase().contains("engine");
                of_engine && (line.contains("HTTP") || STATUSES.iter().any(|status| has_number(line, status)))
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::IdLength => "the length of an ID",
            Self::Status => "an HTTP status",
        }
    }
}

fn capitalized(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

fn has_number(line: &str, number: &str) -> bool {
    line.match_indices(number).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + number.len()..]);
        let goes_on = |c: char| c.is_alphanumeric() || c == '_';
        let dotted = |c: Option<char>, d: Option<char>| c == Some('.') && d.is_some_and(|d| d.is_ascii_digit());
        let mut back = before.chars().rev();
        let mut ahead = after.chars();
        !before.ends_with(goes_on)
            && !after.starts_with(goes_on)
            && !dotted(back.next(), back.next())
            && !dotted(ahead.next(), ahead.next())
    })
}

/// What breaks the rule, one line each; and which exceptions were made.
fn violations(source: &Source, made: &mut [bool]) -> Vec<String> {
    let mut wrong = Vec::new();
    if ROOMS.iter().any(|room| source.file.starts_with(room)) {
        return wrong;
    }
    for (number, line) in (1..).zip(source.text.lines()).filter(|(number, _)| !source.is_test_line(*number)) {
        let mut searched = line.to_owned();
        for (exception, made) in EXCEPTIONS.iter().zip(&mut *made) {
            for text in [exception.text, &capitalized(exception.text)] {
                if source.file.starts_with(exception.file) && searched.contains(text) {
                    searched = searched.replace(text, "");
                    *made = true;
                }
            }
        }
        for (fact, why) in FACTS.iter().filter(|(fact, _)| fact.is_in(&source.file, &searched)) {
            wrong.push(format!("{}:{number}: {}: {why}\n    {}", source.file, fact.name(), line.trim()));
        }
    }
    wrong
}

#[test]
fn only_an_engines_room_knows_its_facts() -> Tested {
    let mut made = [false; EXCEPTIONS.len()];
    let wrong: Vec<String> = read_src()?.iter().flat_map(|source| violations(source, &mut made)).collect();
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
    for (exception, made) in EXCEPTIONS.iter().zip(made) {
        assert!(made, "{} no longer says {:?}: take it out of EXCEPTIONS", exception.file, exception.text);
    }
    Ok(())
}

fn check(file: &str, text: &str) -> Result<Vec<String>, Unreadable> {
    let mut made = [false; EXCEPTIONS.len()];
    Ok(read_all([(file, text)])?.iter().flat_map(|source| violations(source, &mut made)).collect())
}

#[test]
fn a_fact_of_one_engine_is_found_in_code_strings_and_comments() -> Result<(), Unreadable> {
    let sources = [
        ("src/agent/a.rs", "fn f(_: DockerEngine) {}"),
        ("src/agent/a.rs", "const A: &str = \"runs Docker Engine\";"),
        ("src/agent/a.rs", "// as moby does"),
        ("src/core/a.rs", "//! The engine's `exec_die` event."),
        ("src/core/a.rs", "const FALSE: i32 = 126;"),
        ("src/core/a.rs", "/// 127 may stand for anything."),
        ("src/api/a.rs", "pub const TYPE: &str = \"io.kubernetes.docker.type\";"),
        ("src/infra/a.rs", "/// 64 hex digits."),
        ("src/infra/a.rs", "const CONTAINER_ID: usize = 64;"),
        ("src/wire/a.rs", "/// As containerd does."),
        ("src/agent/a.rs", "Err(EngineError::Refused { status, .. }) if (400..500).contains(&status) => {}"),
        ("src/engine/mod.rs", "/// 404 on a container.\nstruct A;"),
        ("src/engine/mod.rs", "pub mod docker; // and bollard"),
        ("src/engine/mod.rs", "pub use self::docker::DockerEngine;"),
        ("src/bin/execlet/main.rs", "const A: i32 = 127;"),
        ("src/cli/exit.rs", "const A: Exit = Exit(127);"),
    ];
    for (file, text) in sources {
        assert_eq!(check(file, text)?.len(), 1, "{file}: {text}");
    }
    Ok(())
}

#[test]
fn what_is_no_fact_of_one_engine_is_let_through() -> Result<(), Unreadable> {
    let sources = [
        ("src/engine/docker/mod.rs", "use bollard::Docker; const A: i32 = 126; // exec_die, 404"),
        ("src/engine/containerd/mod.rs", "// containerd"),
        ("src/engine/mod.rs", "pub mod docker;"),
        ("src/bin/execlet/main.rs", "use execlet::engine::docker::DockerEngine;"),
        ("src/agent/a.rs", "const A: &str = \"127.0.0.1\"; const B: u32 = 1260; const C: f32 = 0.127; // a126"),
        ("src/agent/a.rs", "const A: Reason = Reason::ContainerDied;"),
        ("src/agent/a.rs", "/// HTTP status 404.\nconst A: usize = 64 * 1024; // the engine keeps 512 KiB"),
        ("src/agent/a.rs", "#[cfg(test)]\nmod tests {\n    // docker leaves 126\n}"),
        ("src/agent/a_tests.rs", "// docker leaves 126"),
    ];
    for (file, text) in sources {
        assert_eq!(check(file, text)?, Vec::<String>::new(), "{file}: {text}");
    }
    Ok(())
}
