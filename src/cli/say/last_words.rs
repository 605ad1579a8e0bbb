//! A panic of the plugin: its terminal is restored, and it ends with a code of its own, whichever thread it was.

use std::{panic, process};

use super::terminal;
use crate::{cli::exit::Exit, infra::print::say};

/// From now on a panic ends the program with this code.
pub fn prepare(exit: Exit) {
    panic::set_hook(Box::new(move |info| {
        terminal::restore();
        say("execlet", &format!("this is a bug: {info}"));
        process::exit(i32::from(exit.0));
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command, thread};

    use super::*;

    const TEST: &str = "cli::say::last_words::tests::a_panic_of_any_thread_ends_it_with_a_code_that_says_so";
    const CHILD: &str = "EXECLET_TEST_PANIC";

    #[test]
    fn a_panic_of_any_thread_ends_it_with_a_code_that_says_so() {
        if env::var_os(CHILD).is_some() {
            prepare(Exit::LEFT);
            drop(thread::spawn(|| panic!("one\ntwo")).join());
            return;
        }
        let test = env::current_exe().expect("this program");
        let child = Command::new(test).args([TEST, "--exact", "--nocapture"]).env(CHILD, "1").output().expect("a run");
        assert_eq!(child.status.code(), Some(122));
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("execlet: this is a bug: ") && said.contains(r"\none\ntwo"), "{said}");
    }
}
