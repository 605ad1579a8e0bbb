//! Whether a command was executed. The process that an engine starts is its runtime's own, until the kernel executes the
//! command in it: a PID, an exit and its code may be those of a runtime that never got so far.
//!
//! How an engine's runtime ends then, the engine's own folder knows.

use super::outcome::Exit;
use crate::api::bytes::MAX_STRING_BYTES;

/// What the kernel showed of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sighting {
    /// Nobody has seen it execute anything, yet.
    #[default]
    Unseen,
    Executed,
    /// It has ended, and had executed nothing.
    Never,
}

/// All that was written, from the first byte to the last: as much of its beginning as is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// There was more.
    pub longer: bool,
    /// From a terminal: in one stream, and with other ends of lines.
    pub terminal: bool,
    /// That terminal shows input as output.
    pub echoes: bool,
}

impl Heard {
    pub fn is_silent(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }
}

/// Whose a code may be, as far as it and the output tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The runtime never ends so.
    Command,
    /// The runtime ends so where it could not execute the command; who knows that can make a command end so, too.
    Runtime(Refusal),
    /// Whichever was killed.
    Killed,
    /// The runtime ends with this code, too, and what was written is not known.
    Unheard,
}

/// What a runtime says of a command that it could not execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The program's path, as it was to be executed.
    pub path: String,
    pub obstacle: Obstacle,
    /// The words themselves.
    pub words: String,
}

/// Why the kernel does not execute a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// What is to run it is not there.
    Missing,
    /// No kernel of this kind can run it.
    Format,
    /// It is no file to be executed.
    Denied,
    /// Scripts that run scripts.
    Loop,
    /// An argument or a variable is.
    TooLong,
    Other,
}

/// What else there is to say, where code and output leave it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// The program cannot be executed, and could not be then, because of this.
    Confirmed(String),
    None,
    /// The kernel killed something in the container then, for want of memory.
    OutOfMemory,
    /// All that ran in the container was killed, or what was of this command.
    AllKilled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    Executed,
    /// Nothing of the command ran, because of this.
    Never(String),
    /// It is not known, because of this.
    Doubtful(String),
}

/// Whether the command was executed whose process ended with this code.
pub fn judge(exit: Exit, seen: Sighting, author: &Author, support: Support) -> Execution {
    let Exit { code, .. } = exit;
    match (seen, author, support) {
        (Sighting::Executed, _, _)
        | (Sighting::Unseen, Author::Command, _)
        | (Sighting::Unseen, Author::Killed, Support::None | Support::Confirmed(_)) => Execution::Executed,
        (Sighting::Never, Author::Runtime(Refusal { words, .. }), _) => Execution::Never(words.clone()),
        (Sighting::Never, Author::Command | Author::Killed | Author::Unheard, _) => {
            Execution::Never(format!("its runtime ended with code {code} before it executed the command"))
        }
        (Sighting::Unseen, Author::Runtime(Refusal { words, .. }), Support::Confirmed(why)) => {
            Execution::Never(format!("{words}: {why}"))
        }
        (Sighting::Unseen, Author::Runtime(Refusal { words, path, .. }), _) => Execution::Doubtful(format!(
            "it is not known whether the command ran: all that was written is {words:?}, with exit code {code}; the \
             engine's runtime says so of a program that it cannot execute, but a command can say so, too, and nothing \
             else tells which it was: look at {path:?} in the container"
        )),
        (Sighting::Unseen, Author::Killed, Support::OutOfMemory) => Execution::Doubtful(format!(
            "it is not known whether the command ran: the container ran out of memory before the command was seen to \
             run, and the exit code {code} is its own or that of the engine's runtime, which was to execute it: give \
             the container more memory"
        )),
        (Sighting::Unseen, Author::Killed, Support::AllKilled) => {
            Execution::Doubtful("it was killed before the command was seen to run".to_owned())
        }
        (Sighting::Unseen, Author::Unheard, _) => Execution::Doubtful(format!(
            "it is not known whether the command ran: it ended with exit code {code} before it was seen to run, and \
             what was written then is lost; the engine's runtime ends so, too, where it cannot execute a program"
        )),
    }
}

/// Bytes of all of them that it takes at most, whatever the limits of a process are.
const MAX_STRINGS: usize = 6 * 1024 * 1024;

/// Why Linux surely executes nothing with these arguments and variables, and maybe more of them.
pub fn too_long<'a>(strings: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = 0;
    for bytes in strings.map(str::len) {
        if bytes > MAX_STRING_BYTES {
            return Some(format!("one of its arguments or variables has {bytes} bytes, at most {MAX_STRING_BYTES}"));
        }
        // Each with its end.
        all += bytes + 1;
    }
    (all > MAX_STRINGS).then(|| format!("its arguments and variables have {all} bytes, at most {MAX_STRINGS}"))
}

/// All places where a program of this name is looked for, up to the one where it was found. `None`: it is not found there.
pub fn places(name: &str, found: &str, folder: Option<&str>, search_path: Option<&str>) -> Option<Vec<String>> {
    if name.contains('/') {
        let place =
            if name.starts_with('/') { name.to_owned() } else { format!("{}/{name}", folder?.trim_end_matches('/')) };
        return (name == found).then(|| vec![place]);
    }
    let mut places = Vec::new();
    if name.is_empty() {
        return None;
    }
    for folder in search_path?.split(':') {
        let folder = folder.strip_suffix('/').unwrap_or(folder);
        if !folder.starts_with('/') {
            return None;
        }
        places.push(format!("{folder}/{name}"));
        if places.last().is_some_and(|place| place == found) {
            return Some(places);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ExitCodeSource;

    fn refusal() -> Author {
        let (path, words) = ("/tmp/x".to_owned(), "exec /tmp/x: no such file".to_owned());
        Author::Runtime(Refusal { path, obstacle: Obstacle::Missing, words })
    }

    #[test]
    fn a_code_is_the_commands_own_only_if_that_is_known() {
        use Sighting::{Executed, Never, Unseen};
        let confirmed = || Support::Confirmed("its interpreter /bin/bash is missing".to_owned());
        let rows = [
            // seen, author, support, verdict
            (Executed, Author::Command, Support::None, "executed"),
            // whatever it has written, or whatever was killed beside it
            (Executed, refusal(), confirmed(), "executed"),
            (Executed, Author::Unheard, Support::None, "executed"),
            (Executed, Author::Killed, Support::OutOfMemory, "executed"),
            (Unseen, Author::Command, Support::None, "executed"),
            (Unseen, refusal(), confirmed(), "never"),
            // a command can write the same
            (Unseen, refusal(), Support::None, "doubtful"),
            (Unseen, refusal(), Support::OutOfMemory, "doubtful"),
            (Unseen, Author::Killed, Support::None, "executed"),
            (Unseen, Author::Killed, Support::OutOfMemory, "doubtful"),
            (Unseen, Author::Killed, Support::AllKilled, "doubtful"),
            (Unseen, Author::Unheard, Support::None, "doubtful"),
            (Never, refusal(), Support::None, "never"),
            (Never, Author::Command, Support::None, "never"),
            (Never, Author::Killed, Support::None, "never"),
            (Never, Author::Unheard, Support::None, "never"),
        ];
        for (seen, author, support, expected) in rows {
            let exit = Exit { code: 1, source: ExitCodeSource::Engine };
            let found = match judge(exit, seen, &author, support.clone()) {
                Execution::Executed => "executed",
                Execution::Never(_) => "never",
                Execution::Doubtful(_) => "doubtful",
            };
            assert_eq!(found, expected, "{seen:?} {author:?} {support:?}");
        }
    }

    #[test]
    fn what_is_too_long_for_linux_is_counted_in_bytes() {
        let longest = "x".repeat(MAX_STRING_BYTES);
        assert_eq!(too_long(["true", &longest].into_iter()), None);
        let euros = "\u{20ac}".repeat(44_000);
        assert!(too_long(["true", &euros].into_iter()).is_some_and(|why| why.contains("132000 bytes")));
        assert!(
            too_long(["true", &format!("{longest}x")].into_iter())
                .is_some_and(|why| why.contains("131072 bytes, at most 131071"))
        );
        assert!(too_long([longest.as_str(); 49].into_iter()).is_some());
        assert_eq!(too_long([longest.as_str(); 47].into_iter()), None);
    }

    #[test]
    fn a_program_is_looked_for_as_its_name_says() {
        let path = Some("/usr/local/bin:/bin/:/sbin");
        let rows = [
            ("/tmp/x", "/tmp/x", None, Some(vec!["/tmp/x"])),
            ("/tmp/x", "/tmp/y", None, None),
            ("./x", "./x", Some("/work/"), Some(vec!["/work/./x"])),
            ("./x", "./x", None, None),
            ("x", "/bin/x", None, Some(vec!["/usr/local/bin/x", "/bin/x"])),
            ("x", "/usr/local/bin/x", None, Some(vec!["/usr/local/bin/x"])),
            // what is not on the way is not what was executed
            ("x", "/tmp/x", None, None),
            ("x", "x", Some("/work"), None),
            ("", "/bin/", None, None),
        ];
        for (name, found, folder, expected) in rows {
            let places = places(name, found, folder, path);
            assert_eq!(places, expected.map(|all| all.into_iter().map(str::to_owned).collect()), "{name} {found}");
        }
        assert_eq!(places("x", "/bin/x", None, None), None);
        assert_eq!(places("x", "/bin/x", None, Some(".:/bin")), None, "a folder of the working folder");
    }
}
