//! The report of a batch, made on a cluster: in each format, with the verdict on the real audit logs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    batch_lab::{Seen, everywhere},
    clients::execlet,
    lab::{Lab, NAMESPACE, kubectl, root, text, wait_for},
};

/// What a command writes that a page must not obey, and how it ends.
const SCRIPT: &str = r"
case $EXECLET_BATCH_INDEX in
0) printf '=cmd()</pre></code></td><script>alert(1)</script><img src=x onerror=alert(1)>\n\033[2J\007\302\233\342\200\256|<!--\n```\n' ;;
*) echo well; exit 3 ;;
esac";
const WORDS: &str = "The audit logs are intact, and have every record of this batch.";

/// The audit logs of all agents and managers, as they are on the nodes.
fn logs() -> Vec<PathBuf> {
    let kubeconfig = PathBuf::from(env::var("KUBECONFIG").expect("a cluster"));
    let of = |node: &str| {
        ["execlet-audit", "execlet-audit-manager"].map(|log| kubeconfig.with_file_name(node).join("log").join(log))
    };
    ["n1", "n2"].into_iter().flat_map(of).collect()
}

struct Reported {
    lab: Lab,
    name: String,
    done: Seen,
    lease: String,
}

impl Reported {
    /// A batch that has ended, and the published heads after that.
    async fn new() -> Self {
        let lab = Lab::new().await;
        lab.pods_named("web", 3).await;
        let fields =
            json!({"parallelism": 3, "failurePolicy": {"maxFailed": "100%"}, "reason": "CHG-1 </title><script>"});
        let name = lab.batch(everywhere(SCRIPT, fields));
        let done = lab.batch_ended(&name).await;
        done.ended("Failed", "TargetsFailed", [1, 2, 0, 0, 0]);
        let lease = root().join("target/e2e").join(format!("{name}.yaml"));
        fs::create_dir_all(lease.parent().expect("a folder")).expect("a folder");
        fs::write(&lease, kubectl(&["get", "leases", "-n", NAMESPACE, "-o", "yaml"])).expect("written");
        let it = Self { lab, name, done, lease: lease.to_string_lossy().into_owned() };
        // On a slow disk an act comes before its record.
        wait_for("every record to be written", async || (it.report("json", &logs()).await.1 == 0).then_some(())).await;
        it
    }

    /// The report in a format, held against these logs, and the exit code. The Lease has the heads of the last managers
    /// only, and a run has more.
    async fn report(&self, format: &str, logs: &[PathBuf]) -> (String, i32) {
        let typed = format!("xb/{}", self.name);
        let mut args = vec!["report", &typed, "-o", format, "--lease", &self.lease, "--allow-unanchored"];
        let logs: Vec<String> = logs.iter().map(|log| log.to_string_lossy().into_owned()).collect();
        args.extend(logs.iter().flat_map(|log| ["--audit", log.as_str()]));
        let heard = execlet(&self.lab, &args).await;
        assert!(heard.code < 2, "{}", text(&heard.stderr));
        (String::from_utf8(heard.stdout).expect("UTF-8"), heard.code)
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        fs::remove_file(&self.lease).ok();
    }
}

/// The names of all tags in order.
fn tags(page: &str) -> Vec<&str> {
    let names = page.split('<').skip(1);
    names.map(|rest| rest.split(|c: char| c.is_whitespace() || c == '>').next().expect("a name")).collect()
}

#[tokio::test]
async fn a_report_has_the_verdict_on_the_audit_logs_and_nothing_in_it_that_a_command_wrote_is_obeyed() {
    let reported = Reported::new().await;
    let logs = logs();
    let (page, code) = reported.report("html", &logs).await;
    assert!(code == 0 && page.contains(WORDS), "{page}");
    let readable = "=cmd()&lt;/pre&gt;&lt;/code&gt;&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x \
        onerror=alert(1)&gt;\n<i>\\x1b</i>[2J<i>\\x07</i><i>\\u{9b}</i><i>\\u{202e}</i>|&lt;!--\n```\n</pre>";
    assert!(page.contains(readable), "{page}");
    let tags = tags(&page);
    assert!(!tags.iter().any(|tag| ["script", "/script", "img", "!--"].contains(tag)), "{tags:?}");
    for tag in ["pre", "code", "td", "title", "i"] {
        let count = |name: &str| tags.iter().filter(|tag| **tag == name).count();
        assert_eq!(count(tag), count(&format!("/{tag}")), "{tag}");
    }
    assert!(page.chars().all(|c| !c.is_control() || c == '\n' || c == '\t') && !page.contains('\u{202e}'));

    let (json, code) = reported.report("json", &logs).await;
    let data: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &data["audit"]["intact"], &data["audit"]["anchored"]), (0, &json!(true), &json!(true)));
    let of_batch = |line: &&Value| line.as_str().is_some_and(|line| line.contains("1 batches have records"));
    assert!(data["audit"]["lines"].as_array().expect("lines").iter().any(|line| of_batch(&line)), "{data:#}");
    assert_eq!(data["plan"]["digest"], json!(reported.done.digest()));
    let groups = serde_json::to_value(&reported.done.status.groups).expect("JSON");
    for (same, group) in data["results"].as_array().expect("results").iter().zip(groups.as_array().expect("groups")) {
        for field in ["count", "indexes", "reason", "exitCode"] {
            assert_eq!(same[field], group[field], "{field}");
        }
        assert_eq!(
            (&same["stdout"]["sha256"], &same["outputComplete"]),
            (&group["stdoutSHA256"], &group["outputComplete"])
        );
    }
    let pods: Vec<&Value> = data["commands"].as_array().expect("commands").iter().map(|one| &one["pod"]).collect();
    assert_eq!(pods, ["web-0", "web-1", "web-2"]);

    let (page, code) = reported.report("md", &logs).await;
    assert!(code == 0 && page.contains(WORDS), "{page}");
    let fenced = "````\n=cmd()</pre></code></td><script>alert(1)</script><img src=x onerror=alert(1)>\n\\x1b[2J\\x07\\u{9b}\\u{202e}|<!--\n```\n````\n";
    assert!(page.contains(fenced) && !page.contains('\u{1b}'), "{page}");

    let (table, code) = reported.report("csv", &logs).await;
    assert_eq!((code, table.matches("\r\n").count()), (0, 4), "{table}");
    assert!(table.contains(r#","'=cmd()</pre>"#) && !table.contains('\u{1b}'), "{table}");
}

#[tokio::test]
async fn a_report_says_what_is_wrong_with_the_audit_logs() {
    let reported = Reported::new().await;
    let wrong = "The audit logs are not as they should be: see below.";
    // Those of the agents alone: who planned and released it is missing.
    let agents: Vec<PathBuf> = logs().into_iter().filter(|log| log.ends_with("execlet-audit")).collect();
    let (page, code) = reported.report("md", &agents).await;
    assert!(code == 1 && page.contains(wrong) && page.contains("has no record of its release"), "{page}");
    // One of its records says something else.
    let copy = root().join("target/e2e").join(format!("{}-logs", reported.name));
    let copied: Vec<PathBuf> =
        logs().iter().enumerate().map(|(at, log)| copy_of(log, &copy.join(at.to_string()))).collect();
    let (_, code) = reported.report("md", &copied).await;
    assert_eq!(code, 0, "as copied");
    let changed = copied.iter().map(|log| change(log, reported.done.uid())).sum::<usize>();
    assert_eq!(changed, 2, "two commands have ended with 3");
    let (page, code) = reported.report("md", &copied).await;
    let differs = "it ended with NonZeroExitCode, exit code 3, but no record says so";
    assert!(code == 1 && page.contains(wrong) && page.contains(differs), "{page}");
    fs::remove_dir_all(copy).expect("removed");
}

fn copy_of(log: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).expect("a folder");
    assert!(Command::new("cp").arg("-a").arg(log).arg(to).status().expect("cp").success());
    to.join(log.file_name().expect("a name"))
}

/// Makes the exit codes of a batch's commands good ones. How many.
fn change(path: &Path, batch: &str) -> usize {
    if path.is_dir() {
        return fs::read_dir(path)
            .expect("a folder")
            .map(|entry| change(&entry.expect("an entry").path(), batch))
            .sum();
    }
    let Ok(log) = fs::read_to_string(path) else { return 0 };
    let is_end = |line: &&str| line.contains(batch) && line.contains(r#"/exit-code":"3""#);
    let count = log.lines().filter(is_end).count();
    let changed = log.split_inclusive('\n').map(|line| {
        if is_end(&line) { line.replace(r#"/exit-code":"3""#, r#"/exit-code":"0""#) } else { line.to_owned() }
    });
    if count > 0 {
        fs::write(path, changed.collect::<String>()).expect("written");
    }
    count
}
