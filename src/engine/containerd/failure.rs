//! Why an exec could not be started, in the runtime's words.
//!
//! They are the last line of a log that all execs of a container share: only what names our own program or folder is about
//! our own exec.

use super::folder::About;
use crate::engine::runc;

/// What the engine writes before the runtime's own words.
const RUNTIME_FAILED: &str = "OCI runtime exec failed: ";

/// Whether these words say that this exec, of which nobody but us has tried the start, has run nothing.
pub fn has_failed(words: &str, about: &About) -> bool {
    let program = format!("exec: {}: ", quoted(&about.program));
    let folder = format!("chdir to cwd ({}) ", quoted(&about.working_dir));
    let names_it = words.contains(&program) || words.contains(&folder);
    words.starts_with(RUNTIME_FAILED) && names_it && runc::surely_failed(words)
}

/// As the runtime quotes what is printable.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_about_our_own_program_or_folder_say_that_it_did_not_run() {
        let about = About { program: "/no/such".into(), working_dir: "/nope".into(), tty: false, input: false };
        let failed = "OCI runtime exec failed: exec failed: unable to start container process: ";
        for (words, expected) in [
            (format!("{failed}exec: \"/no/such\": stat /no/such: no such file or directory: unknown"), true),
            (format!("{failed}chdir to cwd (\"/nope\") set in config.json failed: no such file or directory"), true),
            // another exec's
            (format!("{failed}exec: \"/no/such/other\": stat: no such file or directory: unknown"), false),
            (format!("{failed}exec: \"such\": executable file not found in $PATH: unknown"), false),
            (format!("{failed}chdir to cwd (\"/\") set in config.json failed: no such file or directory"), false),
            // not the runtime's, or not of a runtime that came to its end
            ("exec: \"/no/such\": stat /no/such: no such file or directory".to_owned(), false),
            (format!("{failed}exec: \"/no/such\": runc did not terminate successfully: exit status 137"), false),
            ("cannot start a running process: unknown".to_owned(), false),
        ] {
            assert_eq!(has_failed(&words, &about), expected, "{words}");
        }
        let quotes = About { program: "a\"\\b".into(), ..about };
        assert!(has_failed(&format!("{failed}exec: \"a\\\"\\\\b\": executable file not found in $PATH"), &quotes));
    }
}
