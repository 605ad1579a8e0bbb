//! Words of a command line, quoted so that they can be pasted into a shell.

use crate::core::printable::is_printable;

pub fn shell_words(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let word = |word: &String| {
        let bare = !word.is_empty() && word.chars().all(plain);
        if !word.chars().all(is_printable) {
            return format!("$'{}'", word.chars().map(escaped).collect::<String>());
        }
        if bare { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    command.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// As it is written between `$'` and `'`, which the shells in use know.
fn escaped(c: char) -> String {
    match c {
        '\\' | '\'' => format!("\\{c}"),
        c if is_printable(c) => c.to_string(),
        '\n' => r"\n".to_owned(),
        '\t' => r"\t".to_owned(),
        c if c.is_ascii() => format!(r"\x{:02x}", u32::from(c)),
        c if c <= '\u{ffff}' => format!(r"\u{:04x}", u32::from(c)),
        c => format!(r"\U{:08x}", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = |words: &[&str]| shell_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["ls", "-l", "/tmp", "a b", "", "$x", "it's"]), r"ls -l /tmp 'a b' '' '$x' 'it'\''s'");
        assert_eq!(
            words(&["echo", "it's\n\\\x1b[1A", "\u{202e}1\u{e0041}2"]),
            r"echo $'it\'s\n\\\x1b[1A' $'\u202e1\U000e00412'"
        );
    }
}
