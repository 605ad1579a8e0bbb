//! Cut: whether the end of a stream is the end of the output, or the engine has cut it.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::seen::Seen;

/// A stream that ends sooner before the engine would have cut it was not cut.
const SURELY_BEFORE: Duration = Duration::from_millis(100);
/// One that ends so late after the end was noticed may have been cut, unless nobody held it and all had come before.
const MAYBE_BEFORE: Duration = Duration::from_millis(500);
/// How long the kernel's witness may take to tell of a process whose stream has ended.
const WITNESS_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Since when it was read here.
    pub(crate) opened: Instant,
    /// For how long before that nobody had read it.
    pub(crate) unread: Duration,
    pub(crate) last: Option<Instant>,
    /// How many bytes came after its process had last been seen to live.
    pub(crate) burst: u64,
    /// By how much the end of that process may have been noticed late.
    pub(crate) behind: Duration,
    pub(crate) at: Instant,
    pub(crate) cuts_after: Duration,
    pub(crate) keeps_unread: u64,
}

impl Ended {
    /// Whether the process may have ended so long before it that the engine no longer waited.
    fn may_be_late(&self, seen: &Seen) -> bool {
        let Some(alive) = seen.alive else {
            // One that had ended before it could be seen may have done so while nobody read.
            let before = seen.ended.unwrap_or(self.opened);
            return self.at.saturating_duration_since(before) + self.unread
                >= self.cuts_after.saturating_sub(SURELY_BEFORE);
        };
        // It ended after it was last seen to live, and not much earlier than that was noticed.
        let noticed = self.at.saturating_duration_since(seen.ended.unwrap_or(self.at));
        self.at.saturating_duration_since(alive) >= self.cuts_after.saturating_sub(SURELY_BEFORE)
            && noticed + self.behind >= self.cuts_after.saturating_sub(MAYBE_BEFORE)
    }

    fn is_cut(&self, seen: &Seen) -> bool {
        if !self.may_be_late(seen) {
            return false;
        }
        let ended = match (seen.ended, seen.process) {
            (Some(ended), Some(_)) => ended,
            // It lives on, and has closed its output itself.
            (None, Some(_)) => return false,
            (_, None) => return true,
        };
        if self.at.saturating_duration_since(ended) >= self.cuts_after.saturating_sub(MAYBE_BEFORE) {
            // A late end may also be the engine's being busy with the ends of others. Then all had come long before; when
            // something still comes so late, the engine may have cut off what would have come next.
            let draining = self.last.is_some_and(|last| last >= ended + self.cuts_after / 2);
            return seen.held != Some(false) || draining;
        }
        // Its end was noticed late: when it was is not known. Who has a terminal cannot be seen.
        self.burst >= self.keeps_unread || seen.held.map_or(!seen.pipes.is_empty(), |held| held)
    }

    /// Whether the engine may have cut it. Waits for what is still to be seen, if that matters.
    pub(crate) async fn is_forced(&self, seen: &mut watch::Receiver<Seen>) -> bool {
        if !self.may_be_late(&seen.borrow()) {
            return false;
        }
        // The witness may be behind.
        drop(timeout(WITNESS_PATIENCE, seen.wait_for(|seen| seen.whole)).await);
        self.is_cut(&seen.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::ProcessRef;

    const BEGUN_BEFORE: Duration = Duration::from_secs(100);
    const KEEPS: u64 = 1000;

    /// What was seen of a process that ended at `ended`, and a stream of it. Times in ms after that.
    fn ended(ended: Instant) -> (Seen, impl Fn(i64) -> Instant) {
        let process = ProcessRef { pid: 7, start_ticks: 7 };
        let seen = Seen { process: Some(process), alive: Some(ended), ended: Some(ended), ..Seen::default() };
        let after = move |ms: i64| {
            let time = Duration::from_millis(ms.unsigned_abs());
            if ms < 0 { ended - time } else { ended + time }
        };
        (seen, after)
    }

    fn stream(at: Instant, last: Option<Instant>) -> Ended {
        let cuts_after = Duration::from_secs(2);
        let unread = Duration::ZERO;
        let opened = at - BEGUN_BEFORE;
        Ended { opened, unread, last, burst: 0, behind: BEGUN_BEFORE, at, cuts_after, keeps_unread: KEEPS }
    }

    #[test]
    fn an_end_that_may_be_a_cut_is_taken_for_one() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let rows = [
            // Who held it, when the stream ended and when output came last, in ms after the process.
            (Some(false), 1000, Some(900), false),
            (Some(true), 1000, Some(900), false),
            (Some(true), 2100, None, true),
            (None, 2100, None, true),
            // The engine was busy.
            (Some(false), 5000, None, false),
            (Some(false), 5000, Some(900), false),
            // We were: some of it may not have come in time.
            (Some(false), 2100, Some(2000), true),
            (Some(false), 2100, Some(1000), true),
        ];
        for (held, at, last, cut) in rows {
            let seen = Seen { held, ..seen.clone() };
            assert_eq!(stream(after(at), last.map(&after)).is_cut(&seen), cut, "{held:?} {at} {last:?}");
        }
    }

    #[test]
    fn the_end_of_a_process_that_is_noticed_late_does_not_make_a_cut_look_like_an_end() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let pipe = || vec![7];
        let rows = [
            // When it was last seen to live, when its end was noticed, what came in between, which pipes it wrote to
            // and who held them; the stream ends at 0.
            (-1000, Some(0), 0, pipe(), Some(true), false),
            (-2500, Some(0), 0, pipe(), Some(false), false),
            (-2500, Some(0), 0, pipe(), Some(true), true),
            (-2500, Some(0), 0, pipe(), None, true),
            // Not even when the stream had ended.
            (-2500, Some(40), 0, pipe(), Some(true), true),
            (-2500, Some(-100), KEEPS - 1, pipe(), Some(false), false),
            (-2500, Some(0), KEEPS, pipe(), Some(false), true),
            // A terminal.
            (-2500, Some(0), 0, Vec::new(), None, false),
            // It has closed its output, and goes on.
            (-2500, None, 0, pipe(), None, false),
        ];
        let prompt = Duration::from_secs(1);
        for (alive, noticed, burst, pipes, held, cut) in rows {
            let said = format!("{alive} {noticed:?} {burst} {pipes:?} {held:?}");
            let seen = Seen { alive: Some(after(alive)), ended: noticed.map(&after), pipes, held, ..seen.clone() };
            let stream = Ended { burst, ..stream(after(0), None) };
            assert_eq!(stream.is_cut(&seen), cut, "{said}");
            // Where everybody has had a turn in time, silence is no sign.
            assert!(!Ended { behind: prompt, ..stream }.is_cut(&seen), "{said}");
        }
    }

    #[test]
    fn a_process_that_was_never_seen_may_have_ended_while_nobody_read() {
        let (seen, after) = ended(Instant::now() + 2 * BEGUN_BEFORE);
        let rows = [
            // Since when it was read, for how long nobody had before, and a moment before the process's end.
            (-100, 0, Some(-90), false),
            (-100, 1000, Some(-90), false),
            (-100, 1900, Some(-90), true),
            (-2000, 0, Some(-1800), false),
            (-2000, 0, Some(-1900), true),
            // Nothing at all was seen.
            (-2000, 0, None, true),
            (-100, 1800, None, true),
            (-100, 0, None, false),
        ];
        for (opened, unread, before, cut) in rows {
            let seen = Seen { process: None, alive: None, ended: before.map(&after), ..seen.clone() };
            let unread = Duration::from_millis(unread);
            let stream = Ended { opened: after(opened), unread, ..stream(after(0), None) };
            assert_eq!(stream.is_cut(&seen), cut, "{opened} {unread:?} {before:?}");
        }
    }
}
