//! The plugin in a real terminal, which tmux is.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    clients::plugin,
    lab::{Lab, PATIENCE, text, unique},
};

/// Between two looks at the screen.
const LOOK: Duration = Duration::from_millis(50);

/// A terminal with a shell in it.
struct Tmux {
    socket: String,
}

impl Tmux {
    fn open() -> Self {
        let tmux = Self { socket: unique("tmux") };
        let shell = "env -u TMUX PS1='lo''cal> ' sh -i";
        tmux.tmux(&["new-session", "-d", "-x", "80", "-y", "24", shell]);
        tmux.shows("local>");
        tmux.typed(&format!("alias execlet='{}'", plugin().display()));
        tmux.typed("clear");
        tmux
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-L", &self.socket, "-f", "/dev/null"]).args(args).output().expect("tmux");
        assert!(output.status.success(), "tmux {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Types a line.
    #[track_caller]
    fn typed(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Presses keys by their names.
    #[track_caller]
    fn pressed(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows it.
    #[track_caller]
    fn shows(&self, what: &str) {
        self.when(&format!("shows {what:?}"), |screen| screen.contains(what));
    }

    /// Waits for the local shell's prompt: what is typed before it would be the command's.
    #[track_caller]
    fn is_local(&self) {
        self.when("has the local prompt", |screen| screen.trim_end().ends_with("\nlocal>"));
    }

    #[track_caller]
    fn when(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "the screen never {what}:\n{screen}");
            std::thread::sleep(LOOK);
        }
    }

    /// The settings of the terminal, by the local shell.
    #[track_caller]
    fn settings(&self) -> String {
        let mark = unique("s");
        self.typed(&format!("clear; echo {mark}=$(stty -g)="));
        let begin = format!("\n{mark}=");
        let screen = self.when("shows settings", |screen| format!("\n{screen}").contains(&begin));
        let rest = format!("\n{screen}").split_once(&begin).map(|(_, rest)| rest.replace('\n', "")).expect("settings");
        rest.split('=').next().unwrap_or_default().to_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        drop(Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output());
    }
}

#[tokio::test]
async fn a_shell_has_job_control_a_full_screen_and_the_size_of_the_terminal() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let tmux = Tmux::open();
    let before = tmux.settings();
    tmux.typed(&format!("execlet -n {} run -it -e PS1='re''mote> ' web -- sh", lab.namespace));
    tmux.shows("remote>");
    // The first size is there before anybody asks for it.
    tmux.typed("stty size");
    tmux.shows("24 80");
    // Job control, and Ctrl-C to the command only.
    tmux.typed("sh -c 'echo $((40+1)) asleep; exec sleep 1000'");
    tmux.shows("41 asleep");
    tmux.pressed(&["C-z"]);
    tmux.shows("Stopped");
    tmux.typed("bg; jobs; clear; echo $((40+2)) jobs");
    tmux.shows("42 jobs");
    tmux.typed("fg");
    tmux.shows("exec sleep 1000");
    tmux.pressed(&["C-c"]);
    tmux.typed("clear; echo $((40+3)) interrupted");
    tmux.shows("43 interrupted");
    // A full-screen program, over a change of size.
    tmux.typed("vi /tmp/file");
    tmux.shows("~");
    tmux.pressed(&["i"]);
    tmux.typed("written in vi");
    tmux.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    // Its status line says which mode it is in: after Escape it looks whether more of a key comes.
    let last = |screen: &str| screen.trim_end().lines().last().unwrap_or_default().to_owned();
    tmux.pressed(&["Escape"]);
    // It is in that mode at its beginning, too, but has nothing written then.
    tmux.when("is in command mode", |screen| last(screen).starts_with("- ") && screen.contains("[Modified]"));
    tmux.pressed(&[":"]);
    tmux.when("takes a command", |screen| last(screen).starts_with(':'));
    tmux.typed("wq");
    tmux.when("has left vi", |screen| last(screen).starts_with("remote>"));
    tmux.typed("clear; cat /tmp/file; stty size");
    tmux.shows("written in vi");
    tmux.shows("30 100");
    tmux.typed("exit 3");
    tmux.is_local();
    tmux.typed("echo code $?");
    tmux.shows("code 3");
    assert_eq!(tmux.settings(), before);
}

#[tokio::test]
async fn who_detaches_finds_the_command_again_with_all_that_it_has_said() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let tmux = Tmux::open();
    let before = tmux.settings();
    let name = unique("r");
    tmux.typed(&format!("execlet -n {} run -it --name {name} -e PS1='re''mote> ' web -- sh", lab.namespace));
    tmux.shows("remote>");
    tmux.typed("echo $((40+2)) before");
    tmux.shows("42 before");
    tmux.pressed(&["C-p", "C-q"]);
    tmux.shows("detached");
    tmux.is_local();
    assert_eq!(tmux.settings(), before);
    lab.request_when(&name, "to run on", |status| status.phase.to_string() == "Running").await;
    tmux.typed(&format!("clear; execlet -n {} attach -i {name}", lab.namespace));
    tmux.shows("42 before");
    // A lone Ctrl-P is the shell's.
    tmux.pressed(&["C-p", "C-u"]);
    tmux.typed("echo $((40+3)) after");
    tmux.shows("43 after");
    tmux.typed("exit 4");
    tmux.is_local();
    tmux.typed("echo code $?");
    tmux.shows("code 4");
    assert_eq!(tmux.settings(), before);
}

#[tokio::test]
async fn the_terminal_is_given_back_however_the_plugin_ends() {
    let lab = Lab::new().await;
    lab.pod("web", "n1").await;
    let tmux = Tmux::open();
    let before = tmux.settings();
    for signal in ["TERM", "HUP", "INT", "QUIT"] {
        let name = unique("r");
        tmux.typed(&format!("execlet -n {} run -it --name {name} -e PS1='re''mote> ' web -- sh", lab.namespace));
        tmux.shows("remote>");
        // In raw mode: what the local terminal would do with Ctrl-C, the command does.
        send(&name, signal);
        tmux.shows(if signal == "INT" { "canceling" } else { "may still be running" });
        tmux.is_local();
        assert_eq!(tmux.settings(), before, "after SIG{signal}");
    }
    // Stopped and continued: given back in between, and taken again.
    let name = unique("r");
    tmux.typed(&format!("execlet -n {} run -it --name {name} -e PS1='re''mote> ' web -- sh", lab.namespace));
    tmux.shows("remote>");
    send(&name, "TSTP");
    tmux.shows("Stopped");
    tmux.is_local();
    assert_eq!(tmux.settings(), before, "while it is stopped");
    tmux.typed("clear; fg");
    tmux.typed("echo $((40+2)) again");
    tmux.shows("42 again");
    // The command ends in a way of its own.
    tmux.typed("kill -9 $$");
    tmux.is_local();
    tmux.typed("echo code $?");
    tmux.shows("code 137");
    assert_eq!(tmux.settings(), before);
}

/// A signal to the plugin that runs this request, and to nobody else.
fn send(name: &str, signal: &str) {
    let mark = format!("--name\0{name}\0");
    let pid = std::fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            text(&line).contains(&mark) && text(&line).starts_with(&*plugin().to_string_lossy())
        })
        .expect("the plugin's process");
    let killed = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill");
    assert!(killed.success());
}

/// How wide the bar of a batch is; a narrow terminal has none.
fn bar(screen: &str) -> Option<usize> {
    let line = screen.lines().find(|line| line.starts_with("xb/"))?;
    Some(line.find(']')? - line.find('[')?)
}

#[tokio::test]
async fn a_batch_is_seen_in_place_at_any_width_and_ctrl_c_asks() {
    let lab = Lab::new().await;
    for (pod, node) in [("db-0", "n1"), ("db-1", "n2"), ("db-2", "n1")] {
        lab.pod(pod, node).await;
    }
    // So long that the bar of 80 columns is not that of 200.
    let name = unique("resized");
    let tmux = Tmux::open();
    let script = "test $EXECLET_BATCH_INDEX = 0 && exit 3; until test -e /tmp/go; do sleep 0.1; done; echo done";
    tmux.typed(&format!(
        "execlet -n {} run --all --name {name} --parallelism 3 --max-failed 3 -- sh -c '{script}'",
        lab.namespace
    ));
    let is_whole = |screen: &str| {
        screen.contains("db-0: NonZeroExitCode") && screen.contains("2 running: db-1") && screen.contains("1/3")
    };
    let screen = tmux.when("has a view", is_whole);
    assert!(screen.contains("Running [") && screen.contains("1 failed; 2 active"), "{screen}");
    // What is drawn on its way to a terminal that is resized meanwhile is broken there: the next width comes when it is
    // drawn for this one, which the bar tells.
    let mut before = bar(&screen);
    for width in ["200", "50", "80"] {
        tmux.tmux(&["resize-window", "-x", width, "-y", "24"]);
        let screen = tmux.when("is drawn for this width", |screen| {
            bar(screen) != before && screen.matches("active, ").count() == 1 && screen.contains("1/3")
        });
        before = bar(&screen);
        assert_eq!(screen.matches("NonZeroExitCode").count(), 1, "{width}: {screen}");
    }
    tmux.pressed(&["C-c"]);
    tmux.shows("type l to leave");
    tmux.typed("");
    tmux.when("goes on", |screen| screen.trim_end().ends_with("exit code 3"));
    for pod in ["db-1", "db-2"] {
        lab.exec(pod, "touch /tmp/go");
    }
    tmux.shows("db-2: done");
    tmux.is_local();
    let screen = tmux.screen();
    assert!(
        screen.contains("1 failed (NonZeroExitCode, exit code 3): db-0") && !screen.contains(" active"),
        "{screen}"
    );
}
