//! How many targets a number or a share of all of them means. Shares are of the total of the plan, whatever has ended.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::ExecBatchSpec;

#[derive(Clone, Copy)]
enum Rounded {
    Up,
    Down,
}

/// How many may run at a time.
pub fn parallelism(spec: &ExecBatchSpec, total: u16) -> u16 {
    of(&spec.parallelism, total, Rounded::Up).max(1)
}

/// How many may be released.
pub fn limit(spec: &ExecBatchSpec, total: u16) -> u16 {
    of(&spec.release_limit, total, Rounded::Up)
}

/// How many may end without success.
pub fn max_failed(spec: &ExecBatchSpec, total: u16) -> u16 {
    of(&spec.failure_policy.max_failed, total, Rounded::Down)
}

/// What is neither a number nor a share, which the definition refuses, is nothing: less runs, never more.
fn of(share: &IntOrString, total: u16, rounded: Rounded) -> u16 {
    let wanted = match share {
        IntOrString::Int(number) => u32::try_from(*number).unwrap_or(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0).min(100);
            let hundredths = u32::from(total) * percent;
            match rounded {
                Rounded::Up => hundredths.div_ceil(100),
                Rounded::Down => hundredths / 100,
            }
        }
    };
    u16::try_from(wanted).unwrap_or(total).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> IntOrString {
        IntOrString::String(text.to_owned())
    }

    #[test]
    fn a_share_is_of_the_total_and_rounded_to_the_safe_side() {
        for (share, total, up, down) in [
            (IntOrString::Int(0), 50, 0, 0),
            (IntOrString::Int(7), 50, 7, 7),
            (IntOrString::Int(70), 50, 50, 50),
            (IntOrString::Int(-1), 50, 0, 0),
            (text("0%"), 50, 0, 0),
            (text("10%"), 50, 5, 5),
            (text("10%"), 51, 6, 5),
            (text("1%"), 50, 1, 0),
            (text("1%"), 0, 0, 0),
            (text("99%"), 3, 3, 2),
            (text("100%"), 10_000, 10_000, 10_000),
            (text("1000%"), 50, 50, 50),
            (text("abc"), 50, 0, 0),
            (text("-5%"), 50, 0, 0),
        ] {
            assert_eq!(
                (of(&share, total, Rounded::Up), of(&share, total, Rounded::Down)),
                (up, down),
                "{share:?} of {total}"
            );
        }
    }

    #[test]
    fn one_at_least_may_run_and_a_limit_of_0_is_a_preview() {
        let spec = |parallelism, limit| {
            let mut batch = super::super::fixture::batch(&serde_json::json!({}));
            (batch.spec.parallelism, batch.spec.release_limit) = (parallelism, limit);
            batch.spec
        };
        let spec = spec(text("0%"), IntOrString::Int(0));
        assert_eq!((parallelism(&spec, 50), limit(&spec, 50)), (1, 0));
    }
}
