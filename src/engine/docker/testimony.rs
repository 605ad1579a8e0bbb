//! What Docker's codes are worth.
//!
//! Its `inspect` and its `exec_die` event can each be wrong when the stream to the client broke: `inspect` then says
//! 126, the event 127, whatever the command really returned. `docs/docker.md` has what was measured.

use super::calls::{Died, Inspected};
use crate::{
    core::outcome::{EngineWord, Testimony},
    engine::{ExecExit, ExecState},
};

/// The code that a broken stream leaves in `inspect`.
const FALSIFIED_INSPECT: i32 = 126;
/// The code that a broken stream leaves in the event.
const FALSIFIED_EVENT: i32 = 127;

/// What an answer of `inspect` says. It may be wrong both ways about what runs.
pub fn state(found: Inspected) -> ExecState {
    let Inspected { running, code, pid } = found;
    match code {
        Some(code) => ExecState::Ended { word: word(code, pid), pid },
        None if running || pid.is_some() => ExecState::Running { pid },
        None => ExecState::Untouched,
    }
}

fn word(code: i32, pid: Option<u32>) -> EngineWord {
    EngineWord { testimony: Testimony { code, certain: code != FALSIFIED_INSPECT }, ran: pid.is_some() }
}

pub fn exit(died: Died) -> ExecExit {
    let testimony = Testimony { code: died.code, certain: died.code != FALSIFIED_EVENT };
    ExecExit { exec: died.exec, testimony, at: died.at }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::{
        api::ExitCodeSource,
        core::outcome::{Evidence, Exit, StreamEnd, Verdict, judge},
    };

    const PID: Option<u32> = Some(7);

    #[test]
    fn what_docker_says_is_believed_as_far_as_it_was_measured_to_be_true() {
        use StreamEnd::{Broken, Clean};
        let engine = |code| Verdict::Exited(Exit { code, source: ExitCodeSource::Engine });
        let event = |code| Verdict::Exited(Exit { code, source: ExitCodeSource::Event });
        let kernel = |code| Verdict::Exited(Exit { code, source: ExitCodeSource::Kernel });
        let rows = [
            // inspect's code and PID, event, kernel, stream, verdict
            (Some((0, PID)), None, None, Clean, engine(0)),
            (Some((7, PID)), None, None, Broken, engine(7)),
            (Some((7, PID)), Some(7), None, Clean, engine(7)),
            // a command that really returns the two codes that the engine also invents
            (Some((126, PID)), None, None, Clean, engine(126)),
            (Some((127, PID)), None, None, Clean, engine(127)),
            (Some((126, PID)), Some(126), None, Broken, engine(126)),
            (Some((127, PID)), Some(127), None, Broken, engine(127)),
            // a broken stream falsifies one of the two
            (Some((126, PID)), Some(7), None, Broken, event(7)),
            (Some((126, PID)), Some(0), None, Broken, event(0)),
            (Some((7, PID)), Some(127), None, Broken, engine(7)),
            // or both
            (Some((126, PID)), Some(127), None, Broken, Verdict::Undecided),
            (Some((126, PID)), Some(127), None, Clean, Verdict::Undecided),
            (Some((126, PID)), None, None, Broken, Verdict::Undecided),
            // the engine has forgotten the exec
            (None, Some(3), None, Broken, event(3)),
            (None, Some(127), None, Broken, Verdict::Undecided),
            // a start that failed has no process and no event
            (Some((126, None)), None, None, Clean, Verdict::StartFailed),
            (Some((127, None)), None, None, Clean, Verdict::StartFailed),
            (Some((126, None)), None, None, Broken, Verdict::StartFailed),
            // an event proves a process, whatever inspect has not yet noticed
            (Some((3, None)), Some(3), None, Clean, engine(3)),
            (Some((126, None)), Some(127), None, Broken, Verdict::Undecided),
            // the kernel kept what the engine falsified
            (Some((3, PID)), None, Some(7), Broken, engine(3)),
            (Some((126, PID)), Some(7), Some(7), Broken, event(7)),
            (Some((126, PID)), Some(127), Some(7), Broken, kernel(7)),
            (Some((126, PID)), None, Some(7), Broken, kernel(7)),
            (None, Some(127), Some(7), Broken, kernel(7)),
        ];
        for (inspect, event, kernel, stream, expected) in rows {
            let word = inspect.map(|(code, pid)| word(code, pid));
            let died = |code| exit(Died { exec: "e".into(), code, at: Timestamp::UNIX_EPOCH }).testimony;
            let evidence = Evidence { word, exit: event.map(died), kernel, stream };
            assert_eq!(judge(&evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn an_exec_is_untouched_only_if_nothing_shows_of_a_start() {
        let found = |running, code, pid| state(Inspected { running, code, pid });
        assert_eq!(found(false, None, None), ExecState::Untouched);
        assert_eq!(found(true, None, None), ExecState::Running { pid: None });
        assert_eq!(found(false, None, PID), ExecState::Running { pid: PID });
        assert!(matches!(found(true, Some(0), PID), ExecState::Ended { pid: PID, .. }));
    }
}
