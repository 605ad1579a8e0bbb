//! What a command of a batch has written, as far as its status keeps it: each line after the name of its pod.

use crate::{
    api::{ExecRequest, StreamStatus},
    cli::say::{
        page::{Colour, Page},
        tails::tail_bytes,
    },
};

/// Both streams of one request, as pages.
#[derive(Debug)]
pub struct Written {
    pub stdout: Page,
    pub stderr: Page,
    /// What is not shown: sentences.
    pub missing: Vec<String>,
}

/// `logs` makes of the name of a request what to type for all of its output.
pub fn written(child: &ExecRequest, colours: bool, logs: impl Fn(&str) -> String) -> Written {
    let mut written =
        Written { stdout: Page::in_colour(colours), stderr: Page::in_colour(colours), missing: Vec::new() };
    let pod = &child.spec.target.pod_name;
    let Some(output) = child.status.as_ref().and_then(|status| status.output.as_ref()) else { return written };
    written.stdout = prefixed(written.stdout, pod, &output.stdout);
    written.stderr = prefixed(written.stderr, pod, &output.stderr);
    for (name, stream) in [("output", &output.stdout), ("error", &output.stderr)] {
        if stream.truncated {
            let (kept, all) = (tail_bytes(stream).len(), stream.bytes);
            let logs = logs(child.metadata.name.as_deref().unwrap_or_default());
            let text = format!("{pod}: the last {kept} of {all} bytes of standard {name} are shown; all of it: {logs}");
            written.missing.push(text);
        }
    }
    written
}

fn prefixed(page: Page, pod: &str, stream: &StreamStatus) -> Page {
    lines(stream).iter().fold(page, |page, text| line(page, pod, text))
}

/// A line of the command in this pod.
pub fn line(page: Page, pod: &str, text: &str) -> Page {
    page.painted(&format!("{pod}:"), Colour::Bold).text(" ").output(text).end()
}

/// The lines of a stream's end.
pub fn lines(stream: &StreamStatus) -> Vec<String> {
    String::from_utf8_lossy(&tail_bytes(stream)).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::batch::children::tests::{child, exited};

    #[test]
    fn each_line_is_after_the_name_of_its_pod_whatever_is_in_it() {
        let mut status = exited(0, "");
        status["output"]["stdout"] = json!({"tail": "one\ntwo", "bytes": 9000, "truncated": true});
        // An escape sequence, and a line of another pod.
        status["output"]["stderr"] = json!({"tailBase64": "G1sxQWRiLTE6IG9rCmRiLTE6IG9r", "bytes": 19});
        let written = written(&child(0, status), false, |name| format!("logs {name}"));
        assert_eq!(written.stdout.as_str(), "db-0: one\ndb-0: two\n");
        assert_eq!(written.stderr.as_str(), "db-0: \u{fffd}[1Adb-1: ok\ndb-0: db-1: ok\n");
        let missing = "db-0: the last 7 of 9000 bytes of standard output are shown; all of it: logs b-x-0";
        assert_eq!(written.missing, [missing]);
    }
}
