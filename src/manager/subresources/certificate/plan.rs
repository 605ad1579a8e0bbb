//! When a certificate is replaced: a pure function of what there is, and the time.
//!
//! Each certificate has an authority of its own, whose key nobody keeps. The next one is made when a third of the present
//! one's life is left, and served after the API server has trusted its authority for a while, so that no certificate is
//! ever presented that is not trusted yet.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How long before it was made a certificate's life begins: clocks differ.
pub(super) const BACKDATED: Duration = Duration::from_secs(300);
/// How long the next certificate is trusted before it is served, at most.
const LONGEST_OVERLAP: Duration = Duration::from_secs(600);

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// From its making to its end.
    pub(super) life: Duration,
    /// What is left of it when the next one is made.
    renew_before: Duration,
    /// How long the next one is trusted before it is served.
    overlap: Duration,
}

impl Lifetimes {
    pub(crate) fn of(life: Duration) -> Self {
        Self { life, renew_before: life / 3, overlap: (life / 12).min(LONGEST_OVERLAP) }
    }

    /// How soon to look again, in time for the next step.
    pub(super) fn pause(self, current: Option<Validity>, now: Timestamp) -> Duration {
        let left = current.map_or(Duration::ZERO, |current| left(current, now));
        (self.overlap / 2).min(left / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) validity: Validity,
    /// Whether the API server has its authority already.
    pub(super) trusted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to serve: make one, to be served at once.
    Begin,
    MakeNext,
    Promote,
    Keep,
}

/// Decides. `current` is none where what there is cannot be used.
pub(super) fn plan(current: Option<Validity>, next: Option<Next>, now: Timestamp, lifetimes: Lifetimes) -> Step {
    let good = |validity: Validity| now < validity.not_after;
    let next = next.filter(|next| good(next.validity));
    let Some(current) = current.filter(|current| good(*current)) else {
        // Better what somebody may trust already.
        return if next.is_some() { Step::Promote } else { Step::Begin };
    };
    // One with a longer life than is wanted now is left alone: during an upgrade two replicas may want different lives,
    // and must not replace each other's certificates.
    let is_due = left(current, now) <= lifetimes.renew_before;
    // After lives were made longer, less may be left of the last short one.
    let overlap = lifetimes.overlap.min(left(current, now) / 2);
    match next {
        Some(next) if next.trusted && age(next.validity, now) >= overlap => Step::Promote,
        None if is_due => Step::MakeNext,
        Some(_) | None => Step::Keep,
    }
}

fn left(validity: Validity, now: Timestamp) -> Duration {
    validity.not_after.duration_since(now).try_into().unwrap_or_default()
}

/// Since it was made.
fn age(validity: Validity, now: Timestamp) -> Duration {
    let since = now.duration_since(validity.not_before);
    let backdated = SignedDuration::try_from(BACKDATED).unwrap_or_default();
    since.saturating_sub(backdated).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const LIFE: i64 = 90 * DAY;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Made at this second.
    fn made(second: i64) -> Validity {
        Validity { not_before: at(second - 300), not_after: at(second + LIFE) }
    }

    fn step(current: Option<Validity>, next: Option<(Validity, bool)>, now: i64) -> Step {
        let lifetimes = Lifetimes::of(Duration::from_secs(90 * 86_400));
        plan(current, next.map(|(validity, trusted)| Next { validity, trusted }), at(now), lifetimes)
    }

    #[test]
    fn a_life_goes_from_beginning_to_beginning_without_a_gap() {
        let due = 60 * DAY;
        for (current, next, now, expected) in [
            (None, None, 0, Step::Begin),
            (Some(made(0)), None, 0, Step::Keep),
            (Some(made(0)), None, due - 1, Step::Keep),
            (Some(made(0)), None, due, Step::MakeNext),
            // Made, and not trusted by the API server: never served while the present one is good.
            (Some(made(0)), Some((made(due), false)), due + 600, Step::Keep),
            (Some(made(0)), Some((made(due), false)), LIFE - 1, Step::Keep),
            // Trusted, and not for long enough.
            (Some(made(0)), Some((made(due), true)), due + 599, Step::Keep),
            (Some(made(0)), Some((made(due), true)), due + 600, Step::Promote),
            (Some(made(due)), None, due + 600, Step::Keep),
        ] {
            assert_eq!(step(current, next, now), expected, "at {now} of {current:?}, then {next:?}");
        }
    }

    #[test]
    fn what_has_ended_is_replaced_by_what_is_there() {
        assert_eq!(step(Some(made(0)), None, LIFE), Step::Begin);
        assert_eq!(step(Some(made(0)), Some((made(60 * DAY), false)), LIFE), Step::Promote);
        assert_eq!(step(Some(made(0)), Some((made(0), true)), LIFE), Step::Begin);
        assert_eq!(step(None, Some((made(0), true)), 0), Step::Promote);
        // A next one that has ended before it was served is replaced.
        assert_eq!(step(Some(made(60 * DAY)), Some((made(0), true)), 120 * DAY), Step::MakeNext);
    }

    #[test]
    fn one_that_lives_longer_than_is_wanted_now_is_left_to_its_end() {
        let lifetimes = Lifetimes::of(Duration::from_secs(60));
        assert_eq!(plan(Some(made(0)), None, at(0), lifetimes), Step::Keep);
    }

    #[test]
    fn one_that_ends_before_the_next_was_trusted_for_long_enough_is_followed_in_time() {
        let short = Validity { not_before: at(-300), not_after: at(30) };
        assert_eq!(step(Some(short), None, 1), Step::MakeNext);
        assert_eq!(step(Some(short), Some((made(1), false)), 2), Step::Keep);
        // A third of what was left.
        assert_eq!(step(Some(short), Some((made(0), true)), 9), Step::Keep);
        assert_eq!(step(Some(short), Some((made(0), true)), 10), Step::Promote);
    }

    #[test]
    fn a_clock_that_goes_backwards_does_no_harm() {
        assert_eq!(step(Some(made(0)), Some((made(10), true)), -1000), Step::Keep);
    }

    #[test]
    fn a_look_is_often_enough_for_short_lives_and_no_burden_for_long_ones() {
        let (short, long) = (Lifetimes::of(Duration::from_secs(60)), Lifetimes::of(Duration::from_secs(90 * 86_400)));
        let ends_soon = Validity { not_before: at(0), not_after: at(40) };
        for (lifetimes, current, milliseconds) in [
            (short, Some(made(0)), 2500),
            (long, Some(made(0)), 60_000),
            (long, Some(ends_soon), 5000),
            (long, None, 1000),
        ] {
            assert_eq!(lifetimes.pause(current, at(0)), Duration::from_millis(milliseconds), "{current:?}");
        }
    }
}
