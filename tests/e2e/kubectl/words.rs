//! A command line of kubectl, taken apart.

use super::server::Who;

/// Flags that have a value, which may be a word of its own.
const VALUED: [&str; 21] = [
    "-n",
    "-o",
    "-l",
    "-p",
    "-f",
    "--field-selector",
    "--as",
    "--as-group",
    "--as-uid",
    "--type",
    "--subresource",
    "--raw",
    "--timeout",
    "--kubeconfig",
    "--server",
    "--certificate-authority",
    "--token",
    "--audience",
    "--bound-object-kind",
    "--bound-object-name",
    "--bound-object-uid",
];
/// Flags that are said alone, or with their value behind `=`.
const SWITCHES: [&str; 6] = ["-A", "--ignore-not-found", "--wait", "--dry-run", "--cascade", "--validate"];
/// Flags that say who asks, and where: any command may have them.
const COMMON: [&str; 7] =
    ["--as", "--as-group", "--as-uid", "--kubeconfig", "--server", "--certificate-authority", "--token"];

pub struct Words<'a> {
    /// The verb, and what it is about.
    pub said: Vec<&'a str>,
    flags: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    pub fn parse(args: &[&'a str]) -> Option<Self> {
        let mut it = Self { said: Vec::new(), flags: Vec::new() };
        let mut args = args.iter().copied();
        while let Some(word) = args.next() {
            if !word.starts_with('-') {
                it.said.push(word);
                continue;
            }
            match word.split_once('=').filter(|_| word.starts_with("--")) {
                Some((flag, value)) if VALUED.contains(&flag) || SWITCHES.contains(&flag) => {
                    it.flags.push((flag, value));
                }
                None if VALUED.contains(&word) => it.flags.push((word, args.next()?)),
                None if SWITCHES.contains(&word) => it.flags.push((word, "true")),
                _ => return None,
            }
        }
        Some(it)
    }

    /// Nothing, if there are flags beside the common ones and these.
    pub fn only(&self, known: &[&str]) -> Option<()> {
        self.flags.iter().all(|(flag, _)| known.contains(flag) || COMMON.contains(flag)).then_some(())
    }

    pub fn flag(&self, name: &str) -> Option<&'a str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.flag(name).map(str::to_owned)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    /// Whether nothing is to come of it. Nothing, if kubectl is to decide that by itself.
    pub fn is_dry(&self) -> Option<bool> {
        match self.flag("--dry-run") {
            None => Some(false),
            Some("server") => Some(true),
            Some(_) => None,
        }
    }

    /// Who asks. Nothing, if that stands in another kubeconfig.
    pub fn who(&self) -> Option<Who> {
        let mut who = Who::default();
        match (self.flag("--kubeconfig"), self.flag("--token")) {
            (None, None) => {}
            (Some("/dev/null"), Some(token)) => who.token = Some(token.to_owned()),
            _ => return None,
        }
        let headers =
            [("--as", "Impersonate-User"), ("--as-group", "Impersonate-Group"), ("--as-uid", "Impersonate-Uid")];
        for (flag, header) in headers {
            who.headers.extend(self.all(flag).map(|value| (header, value.to_owned())));
        }
        Some(who)
    }
}
