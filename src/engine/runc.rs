//! How `runc` ends where it could not execute a command: in the process that the engine shows as the command's, with a code
//! that the engine tells as the command's, and with words in place of its output. The engines' pages in `docs/` have what
//! was measured.

use crate::core::execution::{Author, Heard, Obstacle, Refusal};

/// Its own codes after a failed `execve`: up to version 1.1, and since 1.2.
const FAILED: [i32; 2] = [1, 255];
/// Of a process that was killed, by SIGKILL and SIGTERM.
const KILLED: [i32; 2] = [128 + 9, 128 + 15];
/// Its words: this, the program's path, a colon, and what the kernel has answered.
const BEGINNING: &str = "exec ";
/// The answers of `execve`, as it says them.
const ANSWERS: [(&str, Obstacle); 19] = [
    ("no such file or directory", Obstacle::Missing),
    ("exec format error", Obstacle::Format),
    ("permission denied", Obstacle::Denied),
    ("too many levels of symbolic links", Obstacle::Loop),
    ("argument list too long", Obstacle::TooLong),
    ("accessing a corrupted shared library", Obstacle::Other),
    ("bad address", Obstacle::Other),
    ("cannot allocate memory", Obstacle::Other),
    ("file name too long", Obstacle::Other),
    ("input/output error", Obstacle::Other),
    ("invalid argument", Obstacle::Other),
    ("is a directory", Obstacle::Other),
    ("not a directory", Obstacle::Other),
    ("operation not permitted", Obstacle::Other),
    ("resource temporarily unavailable", Obstacle::Other),
    ("stale NFS file handle", Obstacle::Other),
    ("text file busy", Obstacle::Other),
    ("too many open files", Obstacle::Other),
    ("too many open files in system", Obstacle::Other),
];

/// What the engine says where the runtime ended, or could not be asked any more, before it said whether it had started the
/// command. Then that may run without the engine's knowledge.
const UNSAID: [&str; 6] = [
    "did not terminate successfully",
    "context deadline exceeded",
    "context canceled",
    "ttrpc: closed",
    "transport is closing",
    "connection error",
];

/// Whether a failed start of which the engine says this has surely started nothing.
pub fn surely_failed(words: &str) -> bool {
    !UNSAID.iter().any(|unsaid| words.contains(unsaid))
}

/// Whose this code is, of a program that goes by this name.
pub fn author(program: &str, code: i32, heard: Option<&Heard>) -> Author {
    if KILLED.contains(&code) {
        // It says nothing when it is killed, unless it is so just after its words.
        let own =
            heard.is_some_and(|heard| !heard.is_silent() && !heard.echoes && words(program, heard) == Author::Command);
        return if own { Author::Command } else { Author::Killed };
    }
    match heard {
        _ if !FAILED.contains(&code) => Author::Command,
        None => Author::Unheard,
        Some(heard) => words(program, heard),
    }
}

fn words(program: &str, heard: &Heard) -> Author {
    let Heard { stdout, stderr, longer, terminal, echoes } = heard;
    let (said, other) = if *terminal { (stdout, stderr) } else { (stderr, stdout) };
    if !other.is_empty() {
        return Author::Command;
    }
    // A terminal ends lines with two characters.
    let said = String::from_utf8_lossy(said).replace("\r\n", if *terminal { "\n" } else { "\r\n" });
    let found = match said.strip_suffix('\n') {
        // What is typed is before and after.
        _ if *echoes => said.split('\n').find_map(|line| refusal(program, line)),
        Some(line) if !longer => refusal(program, line),
        Some(_) | None => None,
    };
    let long_name = program.len() > said.len() / 2;
    match found {
        Some(refusal) => Author::Runtime(refusal),
        // Its words may be longer than what is kept of them.
        None if *longer && (*echoes || said.starts_with(BEGINNING) && (long_name || !said.contains('\n'))) => {
            Author::Unheard
        }
        None => Author::Command,
    }
}

/// What a line says, if it can be its words about this program.
fn refusal(program: &str, line: &str) -> Option<Refusal> {
    let said = line.strip_prefix(BEGINNING)?;
    let (path, answer) = said.rsplit_once(": ")?;
    let obstacle = ANSWERS.iter().find(|(words, _)| *words == answer)?.1;
    // It looks for a program without a folder in `PATH`.
    let found = path == program || path.strip_suffix(program).is_some_and(|folder| folder.ends_with('/'));
    let names_it = !program.is_empty() && found && (path == program || !program.contains('/'));
    names_it.then(|| Refusal { path: path.to_owned(), obstacle, words: line.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_stderr(text: &str) -> Heard {
        Heard { stderr: text.into(), ..Heard::default() }
    }

    fn on_a_terminal(text: &str) -> Heard {
        Heard { stdout: text.into(), terminal: true, ..Heard::default() }
    }

    fn typed(text: &str) -> Heard {
        Heard { echoes: true, ..on_a_terminal(text) }
    }

    #[test]
    fn a_start_has_surely_failed_only_if_the_runtime_has_said_so() {
        for (words, sure) in [
            (
                r#"OCI runtime exec failed: exec failed: unable to start container process: exec: "x": permission denied: unknown"#,
                true,
            ),
            ("unable to find user nobody-here: no matching entries in passwd file", true),
            ("", true),
            ("OCI runtime exec failed: /usr/sbin/runc did not terminate successfully: exit status 137: unknown", false),
            ("failed to start: context deadline exceeded: unknown", false),
        ] {
            assert_eq!(surely_failed(words), sure, "{words}");
        }
    }

    const MISSING: &str = "exec /tmp/x: no such file or directory";

    #[test]
    fn a_code_is_its_own_only_with_its_very_words() {
        let line = format!("{MISSING}\n");
        let runtime = |words: &str, path: &str, obstacle| {
            Author::Runtime(Refusal { path: path.to_owned(), obstacle, words: words.to_owned() })
        };
        let missing = || runtime(MISSING, "/tmp/x", Obstacle::Missing);
        let long = Heard { longer: true, ..on_stderr("exec /tmp/x") };
        let rows = [
            ("/tmp/x", 1, Some(on_stderr(&line)), missing()),
            ("/tmp/x", 255, Some(on_stderr(&line)), missing()),
            ("/tmp/x", 1, Some(on_a_terminal(&format!("{MISSING}\r\n"))), missing()),
            ("true", 1, Some(on_stderr("exec /bin/true: argument list too long\n")), {
                runtime("exec /bin/true: argument list too long", "/bin/true", Obstacle::TooLong)
            }),
            ("./a: b", 1, Some(on_stderr("exec ./a: b: exec format error\n")), {
                runtime("exec ./a: b: exec format error", "./a: b", Obstacle::Format)
            }),
            ("/tmp/\n", 1, Some(on_stderr("exec /tmp/\n: exec format error\n")), {
                runtime("exec /tmp/\n: exec format error", "/tmp/\n", Obstacle::Format)
            }),
            ("/tmp/\n", 1, Some(on_a_terminal("exec /tmp/\r\n: exec format error\r\n")), {
                runtime("exec /tmp/\n: exec format error", "/tmp/\n", Obstacle::Format)
            }),
            // typed on a terminal, before and after
            ("/tmp/x", 1, Some(typed(&format!("ls\r\n{MISSING}\r\nls\r\n"))), missing()),
            ("/tmp/x", 1, Some(typed("ls\r\n")), Author::Command),
            // other codes, other words, other streams
            ("/tmp/x", 3, Some(on_stderr(&line)), Author::Command),
            ("/tmp/x", 0, None, Author::Command),
            ("/tmp/x", 1, Some(on_stderr("")), Author::Command),
            ("/tmp/x", 1, Some(on_stderr(MISSING)), Author::Command),
            ("/tmp/x", 1, Some(on_stderr(&format!("{line}{line}"))), Author::Command),
            ("/tmp/x", 1, Some(on_stderr("exec /tmp/x: no\n")), Author::Command),
            ("/tmp/x", 1, Some(Heard { stdout: line.clone().into(), ..Heard::default() }), Author::Command),
            ("/tmp/x", 1, Some(Heard { stdout: b"a".to_vec(), ..on_stderr(&line) }), Author::Command),
            // about another program
            ("/tmp/y", 1, Some(on_stderr(&line)), Author::Command),
            ("/x", 1, Some(on_stderr(&line)), Author::Command),
            ("", 1, Some(on_stderr("exec /: permission denied\n")), Author::Command),
            // what was written is not known, or not all of it
            ("/tmp/x", 1, None, Author::Unheard),
            ("/tmp/x", 1, Some(long.clone()), Author::Unheard),
            ("/tmp/x", 1, Some(Heard { longer: true, ..on_stderr("sh: exec\n") }), Author::Command),
            (
                "/tmp/x",
                1,
                Some(Heard { longer: true, ..on_stderr("exec a command, then another:\n\n") }),
                Author::Command,
            ),
            ("/tmp/x", 1, Some(Heard { longer: true, ..typed("ls") }), Author::Unheard),
            // it may have been killed itself
            ("sleep", 137, Some(on_stderr("")), Author::Killed),
            ("sleep", 143, None, Author::Killed),
            ("sleep", 137, Some(on_stderr("a")), Author::Command),
            ("sleep", 137, Some(typed("a")), Author::Killed),
            ("/tmp/x", 137, Some(on_stderr(&line)), Author::Killed),
        ];
        for (program, code, heard, expected) in rows {
            assert_eq!(author(program, code, heard.as_ref()), expected, "{program} {code} {heard:?}");
        }
    }
}
