//! Whether Linux can be given the strings of a command at all. It counts their bytes.
//!
//! The definition refuses such a request when it is created. This is for one that was created by another definition.

use crate::api::{
    ExecRequestSpec,
    bytes::{MAX_PATH_BYTES, MAX_STRING_BYTES},
};

/// Why no command can ever be started with these strings, if that is so.
pub fn impossible(spec: &ExecRequestSpec) -> Option<String> {
    if spec.command.first().is_none_or(String::is_empty) {
        return Some("command[0] is empty: it names the program to run".to_owned());
    }
    let mut command = spec.command.iter().enumerate();
    command
        .find_map(|(at, word)| {
            let most = if at == 0 { MAX_PATH_BYTES } else { MAX_STRING_BYTES };
            misfit(&format!("command[{at}]"), word.len(), has_nul(word), most)
        })
        .or_else(|| {
            spec.env.iter().find_map(|variable| {
                let name: String = variable.name.chars().take(64).collect();
                if name.is_empty() || variable.name.contains('=') {
                    return Some(format!("env {name:?}: the name of a variable has a character at least, and no ="));
                }
                let bytes = variable.name.len() + "=".len() + variable.value.len();
                let nul = has_nul(&variable.name) || has_nul(&variable.value);
                misfit(&format!("env {name:?}, as NAME=VALUE,"), bytes, nul, MAX_STRING_BYTES)
            })
        })
        .or_else(|| {
            let folder = spec.working_dir.as_deref()?;
            misfit("workingDir", folder.len(), has_nul(folder), MAX_PATH_BYTES)
        })
        .or_else(|| spec.user.as_deref().filter(|user| has_nul(user)).map(|_| with_nul("user")))
}

fn misfit(what: &str, bytes: usize, nul: bool, most: usize) -> Option<String> {
    if nul {
        return Some(with_nul(what));
    }
    (bytes > most).then(|| format!("{what} has {bytes} bytes, and Linux takes {most}: give it less"))
}

fn with_nul(what: &str) -> String {
    format!("{what} has a NUL in it, at which Linux would end it: leave it out")
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(change: &Value) -> Option<String> {
        let mut spec = json!({"target": {"podName": "web"}, "command": ["true"]});
        spec.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        impossible(&serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn what_linux_takes_is_counted_in_bytes() {
        let variable = |name: &str, value: String| json!({"env": [{"name": name, "value": value}]});
        for possible in [
            json!({}),
            json!({"command": ["true", "x".repeat(131_071), ""]}),
            json!({"command": ["true", "é".repeat(65_535)]}),
            variable("A", "x".repeat(131_069)),
            variable("É", "€".repeat(43_689)),
            json!({"workingDir": format!("/{}", "x".repeat(4094))}),
        ] {
            assert_eq!(said(&possible), None);
        }
        for (change, words) in [
            (json!({"command": []}), "command[0] is empty"),
            (json!({"command": [""]}), "command[0] is empty"),
            (json!({"command": ["x".repeat(4096)]}), "command[0] has 4096 bytes, and Linux takes 4095"),
            (json!({"command": ["true", "x".repeat(131_072)]}), "command[1] has 131072 bytes, and Linux takes 131071"),
            (json!({"command": ["true", "€".repeat(44_000)]}), "command[1] has 132000 bytes"),
            (json!({"command": ["true", "a\0b"]}), "command[1] has a NUL"),
            (variable("A", "x".repeat(131_070)), "env \"A\", as NAME=VALUE, has 131072 bytes"),
            (variable("A", "😀".repeat(32_768)), "env \"A\", as NAME=VALUE, has 131074 bytes"),
            (variable("A", "\0".to_owned()), "env \"A\", as NAME=VALUE, has a NUL"),
            (variable("A\0", String::new()), "env \"A\\0\", as NAME=VALUE, has a NUL"),
            (variable("A=B", String::new()), "env \"A=B\": the name"),
            (variable("", String::new()), "env \"\": the name"),
            (
                json!({"workingDir": format!("/{}", "é".repeat(2048))}),
                "workingDir has 4097 bytes, and Linux takes 4095",
            ),
            (json!({"workingDir": "/\0"}), "workingDir has a NUL"),
            (json!({"user": "a\0"}), "user has a NUL"),
        ] {
            let said = said(&change).expect("impossible");
            assert!(said.starts_with(words), "{said}");
        }
    }
}
