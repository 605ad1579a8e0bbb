use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::*;
use crate::wire::OutputStream;

fn piece(length: usize) -> Piece {
    Piece { stream: OutputStream::Stdout, at: Timestamp::UNIX_EPOCH, bytes: vec![b'x'; length].into() }
}

/// As the pump does.
async fn push(hub: &Hub, piece: Piece) {
    hub.room(piece.bytes.len()).await;
    hub.push(piece);
}

fn open(hub: &Hub, state: LogState) {
    hub.open(0, Kept { output: 0, file: 0, state });
}

#[tokio::test]
async fn little_waits_for_more_before_it_is_written_unless_there_are_many() {
    let hubs = Hubs::default();
    let hub = hubs.of(&"u".into());
    open(&hub, LogState::Whole);
    push(&hub, piece(BATCH_BYTES - 1)).await;
    assert!(!hub.is_urgent());
    push(&hub, piece(1)).await;
    assert!(hub.is_urgent());
    // What is kept for viewers is no reason to write.
    let _viewing = hub.view();
    hub.keep(Kept { output: BATCH_BYTES as u64, file: 1, state: LogState::Whole });
    push(&hub, piece(LEAST_BYTES / 2)).await;
    assert!(!hub.is_urgent());
    hubs.pool.add(ALL_BYTES / 2);
    assert!(hub.is_urgent());
    hubs.pool.sub(ALL_BYTES / 2);
    hub.close();
    assert!(hub.is_urgent(), "no more is to come");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_still_costs_the_log_after_two_seconds_and_then_nothing() {
    let hubs = Hubs::default();
    let hub = hubs.of(&"u".into());
    open(&hub, LogState::Whole);
    let begun = Instant::now();
    for _ in 0..1000 {
        push(&hub, piece(32 * 1024)).await;
    }
    assert_eq!(hub.kept().state, LogState::Slow);
    assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(hubs.pool.bytes() <= MOST_BYTES, "what nobody needs goes");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_slow_slows_the_command_and_nothing_is_lost() {
    let hub = Hubs::default().of(&"u".into());
    open(&hub, LogState::Whole);
    let mut output = 0;
    let begun = Instant::now();
    let pushing = async {
        for _ in 0..1000 {
            push(&hub, piece(32 * 1024)).await;
        }
    };
    let slow = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            output += hub.unkept(BATCH_BYTES).iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
            hub.keep(Kept { output, file: output, state: LogState::Whole });
        }
    };
    tokio::select! {
        () = pushing => {}
        () = slow => {}
    }
    assert_eq!(hub.kept().state, LogState::Whole);
    assert!(begun.elapsed() > Duration::from_secs(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_waits_for_its_turn_is_not_given_up_while_others_have_theirs() {
    let hubs = Hubs::default();
    let (hub, other) = (hubs.of(&"u".into()), hubs.of(&"other".into()));
    open(&hub, LogState::Whole);
    open(&other, LogState::Whole);
    let pushing = async {
        for _ in 0..1000 {
            push(&hub, piece(32 * 1024)).await;
        }
    };
    let others = async {
        for _ in 0..20 {
            tokio::time::sleep(PATIENCE / 2).await;
            other.keep(Kept { output: 0, file: 0, state: LogState::Whole });
        }
        assert_eq!(hub.kept().state, LogState::Whole);
        Instant::now()
    };
    let ((), stopped) = tokio::join!(pushing, others);
    assert_eq!(hub.kept().state, LogState::Slow, "nobody has a turn any more");
    assert!(stopped.elapsed() <= PATIENCE * 2, "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn a_log_in_the_way_of_more_output_is_urgent_however_little_it_has_to_take() {
    let hubs = Hubs::default();
    let hub = hubs.of(&"u".into());
    open(&hub, LogState::Whole);
    // Pieces take more than their bytes.
    for _ in 0..LEAST_BYTES / PIECE_BYTES {
        hub.push(piece(1));
    }
    assert!(!hub.is_urgent());
    hubs.pool.add(ALL_BYTES);
    let mut changes = hub.changes();
    assert!(timeout(Duration::ZERO, hub.room(1)).await.is_err());
    assert!(hub.is_urgent());
    assert!(changes.has_changed().expect("a hub"), "the log hears of it");
    changes.borrow_and_update();
    assert!(timeout(Duration::ZERO, hub.room(1)).await.is_err());
    assert!(!changes.has_changed().expect("a hub"), "once");
    let output = hub.now();
    hub.keep(Kept { output, file: 1, state: LogState::Whole });
    assert!(!hub.is_urgent());
    assert!(timeout(Duration::ZERO, hub.room(1)).await.is_ok());
    hubs.pool.sub(ALL_BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_somebody_waits_for_takes_at_once_what_there_is_or_is_given_up() {
    let hub = Hubs::default().of(&"u".into());
    open(&hub, LogState::Whole);
    let begun = Instant::now();
    hub.all_kept().await;
    push(&hub, piece(10)).await;
    assert!(!hub.is_urgent(), "more may come");
    let writer = async {
        let mut changes = hub.changes();
        // A part of it, and then the rest.
        for output in [4, 10] {
            while !hub.is_urgent() {
                changes.changed().await.expect("a hub");
            }
            hub.keep(Kept { output, file: output, state: LogState::Whole });
        }
    };
    tokio::join!(hub.all_kept(), writer);
    assert_eq!((begun.elapsed(), hub.is_urgent()), (Duration::ZERO, false));
    push(&hub, piece(10)).await;
    hub.all_kept().await;
    assert_eq!(hub.kept().state, LogState::Slow, "nobody writes it");
    assert!((PATIENCE..=PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_was_kept_for_viewers_goes_with_the_last_of_them() {
    let hubs = Hubs::default();
    let hub = hubs.of(&"u".into());
    open(&hub, LogState::Limited);
    let (one, other) = (hub.view(), hub.view());
    for _ in 0..10 {
        push(&hub, piece(LEAST_BYTES)).await;
    }
    drop(one);
    assert!(hubs.pool.bytes() > 10 * LEAST_BYTES);
    drop(other);
    assert!(hubs.pool.bytes() <= LEAST_BYTES);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_log_that_is_given_up_waits_no_longer() {
    let hub = Hubs::default().of(&"u".into());
    open(&hub, LogState::Whole);
    let begun = Instant::now();
    let pushing = async {
        for _ in 0..1000 {
            push(&hub, piece(32 * 1024)).await;
        }
    };
    let giving_up = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        hub.give_up_log();
    };
    tokio::join!(pushing, giving_up);
    assert_eq!((hub.kept().state, begun.elapsed().as_secs()), (LogState::Slow, 1));
}

#[tokio::test]
async fn five_hundred_noisy_commands_stay_within_their_bounds() {
    let hubs = Hubs::default();
    let mut all = Vec::new();
    for number in 0..500 {
        let hub = hubs.of(&format!("u{number}").as_str().into());
        open(&hub, LogState::Limited);
        let viewing = hub.view();
        for _ in 0..100 {
            push(&hub, piece(16 * 1024)).await;
        }
        all.push((hub, viewing));
    }
    let used = hubs.pool.bytes();
    assert!(used <= ALL_BYTES + 501 * LEAST_BYTES, "{used}");
    drop(all);
    assert_eq!(hubs.pool.bytes(), 0, "everything comes back");
}

#[tokio::test]
async fn what_the_log_has_not_taken_stays_and_what_it_has_goes() {
    let hub = Hubs::default().of(&"u".into());
    open(&hub, LogState::Whole);
    for _ in 0..10 {
        push(&hub, piece(1000)).await;
    }
    assert_eq!(hub.unkept(usize::MAX).len(), 10);
    hub.keep(Kept { output: 5000, file: 6000, state: LogState::Whole });
    assert_eq!(hub.unkept(usize::MAX).len(), 5);
    assert!(matches!(hub.after(ViewPosition::START, 1), Follows::InFile(_)));
    let live = hub.after(ViewPosition { output: 5000, known: (0, 0) }, usize::MAX);
    assert!(matches!(live, Follows::Pieces(pieces, place) if pieces.len() == 5 && place.known == (5000, 6000)));
}

#[tokio::test]
async fn whatever_is_over_ends_for_those_who_watch() {
    let written = Written { bytes: 7, whole: false };
    let hub = Hubs::default().of(&"u".into());
    hub.end(|| 9, written);
    assert!(matches!(hub.after(ViewPosition::START, 1), Follows::InFile(Kept { file: 9, .. })));
    assert_eq!(hub.written(), written);
    let hub = Hubs::default().of(&"u".into());
    open(&hub, LogState::Whole);
    push(&hub, piece(3)).await;
    hub.end(|| 9, written);
    assert!(matches!(hub.after(ViewPosition::START, 1), Follows::Pieces(..)), "what was heard is shown");
    assert!(matches!(hub.after(ViewPosition { output: 3, known: (0, 0) }, 1), Follows::End));
}

#[test]
fn the_same_request_has_the_same_hub_for_as_long_as_somebody_has_it() {
    let hubs = Hubs::default();
    let first = hubs.of(&"u".into());
    assert!(Arc::ptr_eq(&first, &hubs.of(&"u".into())));
    first.conclude(ExecResult::of_exit_code(0));
    first.conclude(ExecResult::of_exit_code(1));
    assert_eq!(first.result().as_deref(), Some(&ExecResult::of_exit_code(0)), "the first word stands");
    drop(first);
    assert_eq!(hubs.of(&"u".into()).result(), None);
}
