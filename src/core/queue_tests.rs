use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NO_LIMITS: Limits = Limits { node: 1000, namespace: 1000, container: 1000, reserved_percent: 0 };
/// As the chart sets them.
const DEFAULT: Limits = Limits { node: 64, namespace: 64, container: 32, reserved_percent: 25 };

fn node(limit: usize) -> Limits {
    Limits { node: limit, ..NO_LIMITS }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn place(namespace: &str, container: &str, requester: &str) -> Place {
    Place { namespace: namespace.to_owned(), container: container.to_owned(), requester: requester.to_owned() }
}

fn ticket(namespace: &str, container: &str, second: i64, uid: &str) -> Ticket {
    ticket_of(place(namespace, container, "r"), second, uid)
}

fn ticket_of(place: Place, second: i64, uid: &str) -> Ticket {
    Ticket { place, created: at(second), uid: uid.to_owned(), deadline: at(second + 60) }
}

/// Lets all run that may, which never end. How many began.
fn fill<T>(queue: &mut FairQueue<T>) -> usize {
    std::iter::from_fn(|| queue.pop()).count()
}

fn push<T>(queue: &mut FairQueue<T>, namespace: &str, second: i64, uid: &str, item: T) {
    queue.push(&ticket(namespace, "c", second, uid), item);
}

#[test]
fn a_flood_in_one_namespace_delays_only_itself() {
    let mut queue = FairQueue::new(node(2));
    for n in 0..100 {
        push(&mut queue, "flood", n, &format!("f{n}"), format!("flood-{n}"));
    }
    push(&mut queue, "quiet", 1000, "q", "quiet-0".to_owned());
    assert_eq!(queue.pop().as_deref(), Some("flood-0"));
    assert_eq!(queue.pop().as_deref(), Some("quiet-0"));
}

#[test]
fn within_a_namespace_the_oldest_is_first() {
    let mut queue = FairQueue::new(NO_LIMITS);
    push(&mut queue, "a", 2, "x", 2);
    push(&mut queue, "a", 1, "y", 1);
    push(&mut queue, "a", 2, "w", 3);
    queue.push(&ticket("a", "other", 0, "z"), 0);
    assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(1), Some(3), Some(2)]);
}

#[test]
fn no_more_run_than_the_limit() {
    let mut queue = FairQueue::new(node(1));
    push(&mut queue, "a", 1, "x", 1);
    push(&mut queue, "b", 1, "y", 2);
    assert_eq!(queue.pop(), Some(1));
    assert_eq!(queue.pop(), None);
    queue.done(&place("a", "c", "r"));
    assert_eq!(queue.pop(), Some(2));
    assert_eq!((queue.running(), queue.waiting()), (1, 0));
}

#[test]
fn no_more_of_a_namespace_run_than_its_limit_and_the_others_go_on() {
    let mut queue = FairQueue::new(Limits { namespace: 1, ..NO_LIMITS });
    push(&mut queue, "a", 1, "x", 1);
    push(&mut queue, "a", 2, "y", 2);
    push(&mut queue, "b", 3, "z", 3);
    assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(3), None]);
    queue.done(&place("a", "c", "r"));
    assert_eq!(queue.pop(), Some(2));
}

#[test]
fn a_busy_container_does_not_hold_up_the_others_of_its_namespace() {
    let mut queue = FairQueue::new(Limits { container: 1, ..NO_LIMITS });
    for n in 0..3 {
        queue.push(&ticket("a", "busy", n, &format!("b{n}")), n);
    }
    queue.push(&ticket("a", "quiet", 10, "q"), 10);
    assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(10), None]);
    queue.done(&place("a", "busy", "r"));
    assert_eq!(queue.pop(), Some(1));
}

#[test]
fn namespaces_take_turns() {
    let mut queue = FairQueue::new(node(1));
    for n in 0..2 {
        push(&mut queue, "a", n, &format!("a{n}"), "a");
        push(&mut queue, "b", n, &format!("b{n}"), "b");
    }
    let mut order = Vec::new();
    while let Some(namespace) = queue.pop() {
        order.push(namespace);
        queue.done(&place(namespace, "c", "r"));
    }
    assert_eq!(order, ["a", "b", "a", "b"]);
}

#[test]
fn the_namespace_with_the_fewest_running_comes_first() {
    let mut queue = FairQueue::new(node(3));
    for n in 0..2 {
        push(&mut queue, "long", n, &format!("l{n}"), "long");
        push(&mut queue, "short", n, &format!("s{n}"), "short");
    }
    assert_eq!([queue.pop(), queue.pop()], [Some("long"), Some("short")]);
    queue.done(&place("short", "c", "r"));
    assert_eq!(queue.pop(), Some("short"), "though it was served last");
}

#[test]
fn the_requester_with_the_fewest_running_comes_first() {
    let mut queue = FairQueue::new(node(3));
    for n in 0..2 {
        for requester in ["long", "short"] {
            queue.push(&ticket_of(place("a", "c", requester), n, &format!("{requester}{n}")), requester);
        }
    }
    assert_eq!([queue.pop(), queue.pop()], [Some("long"), Some("short")]);
    queue.done(&place("a", "c", "short"));
    assert_eq!(queue.pop(), Some("short"), "though it was served last");
}

#[test]
fn a_namespace_that_comes_anew_comes_after_all_that_wait() {
    let mut queue = FairQueue::new(node(1));
    push(&mut queue, "a", 0, "a0", "a");
    assert_eq!(queue.pop(), Some("a"));
    push(&mut queue, "c", 1, "c1", "c");
    queue.done(&place("a", "c", "r"));
    push(&mut queue, "b", 2, "b2", "b");
    assert_eq!(queue.pop(), Some("b"));
    queue.done(&place("b", "c", "r"));
    push(&mut queue, "a", 3, "a3", "a");
    assert_eq!(queue.pop(), Some("c"));
}

#[test]
fn one_that_runs_already_takes_a_place_beyond_the_limit() {
    let mut queue = FairQueue::new(node(1));
    queue.admit(&place("a", "c", "r"));
    queue.admit(&place("a", "c", "r"));
    push(&mut queue, "b", 1, "x", ());
    assert_eq!((queue.pop(), queue.running()), (None, 2));
    queue.done(&place("a", "c", "r"));
    assert_eq!(queue.pop(), None);
    queue.done(&place("a", "c", "r"));
    assert_eq!(queue.pop(), Some(()));
}

#[test]
fn the_same_request_twice_is_one() {
    let mut queue = FairQueue::new(NO_LIMITS);
    push(&mut queue, "a", 1, "x", 1);
    push(&mut queue, "a", 1, "x", 1);
    assert_eq!(queue.waiting(), 1);
}

#[test]
fn one_that_waits_past_its_deadline_is_given_out_though_no_place_is_free() {
    let mut queue = FairQueue::new(node(0));
    push(&mut queue, "a", 1, "x", 1);
    push(&mut queue, "a", 0, "y", 0);
    assert_eq!(queue.next_deadline(), Some(at(60)));
    assert_eq!(queue.pop_expired(at(59)), None);
    assert_eq!([queue.pop_expired(at(60)), queue.pop_expired(at(60))], [Some((0, Some(Full::Node { most: 0 }))), None]);
    assert_eq!((queue.waiting(), queue.running()), (1, 1));
}

#[test]
fn one_that_is_canceled_need_not_wait_for_its_turn() {
    let mut queue = FairQueue::new(node(0));
    push(&mut queue, "a", 1, "x", 1);
    assert_eq!(queue.take(&ticket("a", "c", 1, "x")), Some(1));
    assert_eq!(queue.take(&ticket("a", "c", 1, "x")), None);
    assert_eq!((queue.waiting(), queue.next_deadline()), (0, None));
}

#[test]
fn whoever_has_most_leaves_a_quarter_to_the_others() {
    let share = |places, of_others| DEFAULT.share(places, of_others);
    assert_eq!([share(64, 0), share(64, 48), share(64, 60), share(64, 63), share(64, 64)], [48, 12, 3, 1, 0]);
    assert_eq!([share(1, 0), share(2, 0), share(3, 0), share(4, 0), share(5, 9)], [1, 1, 2, 3, 0], "one at least");
    assert_eq!(NO_LIMITS.share(64, 0), 64);
}

#[test]
fn long_commands_of_one_namespace_leave_room_for_the_next_ones() {
    let mut queue = FairQueue::new(DEFAULT);
    for (namespace, begin) in [("a", 48), ("b", 12), ("c", 3), ("d", 1), ("e", 0)] {
        for n in 0..300 {
            // Of many requesters in many containers.
            let place = place(namespace, &format!("c{}", n % 10), &format!("r{n}"));
            queue.push(&ticket_of(place, n, &format!("{namespace}{n}")), ());
        }
        assert_eq!(fill(&mut queue), begin, "{namespace}");
    }
}

#[test]
fn long_commands_of_one_user_leave_room_for_the_next_ones_on_the_same_pod() {
    let mut queue = FairQueue::new(DEFAULT);
    for (requester, begin) in [("ann", 24), ("bob", 6), ("eve", 1)] {
        for n in 0..64 {
            queue.push(&ticket_of(place("a", "c", requester), n, &format!("{requester}{n}")), ());
        }
        assert_eq!(fill(&mut queue), begin, "{requester}");
    }
    let mut queue = FairQueue::new(DEFAULT);
    for (requester, begin) in [("ann", 36), ("bob", 9), ("eve", 2)] {
        for n in 0..64 {
            let place = place("a", &format!("c{}", n % 8), requester);
            queue.push(&ticket_of(place, n, &format!("{requester}{n}")), ());
        }
        assert_eq!(fill(&mut queue), begin, "{requester}, in many containers");
    }
}

#[test]
fn six_hundred_short_commands_of_one_user_delay_another_ones_by_none() {
    let mut queue = FairQueue::new(DEFAULT);
    for n in 0..600 {
        queue.push(&ticket_of(place("a", "c", "ann"), n, &format!("ann{n}")), "ann");
    }
    assert_eq!(fill(&mut queue), 24);
    queue.push(&ticket_of(place("a", "c", "bob"), 1000, "bob"), "bob");
    assert_eq!([queue.pop(), queue.pop()], [Some("bob"), None]);
}

#[test]
fn one_that_waits_is_told_what_for() {
    let mut queue = FairQueue::<()>::new(Limits { node: 8, namespace: 7, container: 4, reserved_percent: 25 });
    let mut said = |requester: &str, container: &str, admitted: usize| {
        let place = place("shop", container, requester);
        (0..admitted).for_each(|_| queue.admit(&place));
        queue.what_is_full(&place).map(|full| full.to_string())
    };
    let full = |words: &str| Some(words.to_owned());
    assert_eq!(said("ann", "c", 2), None);
    assert_eq!(
        said("ann", "c", 1),
        full("user ann has 3 commands running in its container, and may have 3 (--reserved-percent)")
    );
    assert_eq!(
        said("bob", "c", 1),
        full("4 commands run in its container, and no more may (--max-concurrent-per-container)")
    );
    assert_eq!(
        said("ann", "d", 0),
        full("user ann has 3 commands running there in this namespace, and may have 3 (--reserved-percent)")
    );
    assert_eq!(
        said("eve", "d", 2),
        full(
            "namespace shop has 6 commands running there, and may have 6 (--max-concurrent-per-namespace, --reserved-percent)"
        )
    );
    assert_eq!(said("eve", "d", 2), full("8 commands run there, and no more may (--max-concurrent)"));
}

#[derive(Clone, Debug)]
enum Act {
    Push(Place),
    Pop,
    /// One of those that run ends.
    Done(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let place = (0..3, 0..3, 0..3).prop_map(|(n, c, r)| place(&format!("n{n}"), &format!("c{c}"), &format!("r{r}")));
    let act = prop_oneof![4 => place.prop_map(Act::Push), 3 => Just(Act::Pop), 2 => any::<usize>().prop_map(Act::Done)];
    prop::collection::vec(act, 1..200)
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..12_usize, 1..12_usize, 1..6_usize, 0..90_usize).prop_map(|(node, namespace, container, reserved_percent)| {
        Limits { node, namespace, container, reserved_percent }
    })
}

proptest! {
    #[test]
    fn whatever_comes_no_limit_is_passed_and_all_that_waits_is_kept_by_one(limits in limits(), acts in acts()) {
        let mut queue = FairQueue::new(limits);
        let (mut running, mut waiting) = (Vec::<Place>::new(), Vec::<Ticket>::new());
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Push(place) => {
                    let ticket = ticket_of(place, i64::try_from(n).unwrap_or(0), &n.to_string());
                    queue.push(&ticket, ticket.clone());
                    waiting.push(ticket);
                }
                Act::Pop => {
                    let free: Vec<bool> = waiting.iter().map(|ticket| queue.what_is_full(&ticket.place).is_none()).collect();
                    match queue.pop() {
                        Some(next) => {
                            let at = waiting.iter().position(|ticket| *ticket == next).expect("it waited");
                            prop_assert!(free[at], "{next:?} ran though something was full");
                            running.push(waiting.remove(at).place);
                        }
                        None => prop_assert!(free.iter().all(|free| !free), "one was kept waiting by nothing"),
                    }
                }
                Act::Done(which) => {
                    if !running.is_empty() {
                        queue.done(&running.swap_remove(which % running.len()));
                    }
                }
            }
            let of = |mine: &dyn Fn(&Place) -> bool| running.iter().filter(|place| mine(place)).count();
            prop_assert_eq!((queue.running(), queue.waiting()), (running.len(), waiting.len()));
            prop_assert!(running.len() <= limits.node);
            for place in &running {
                prop_assert!(of(&|other| other.namespace == place.namespace) <= limits.namespace);
                let there = of(&|other| (&other.namespace, &other.container) == (&place.namespace, &place.container));
                prop_assert!(there <= limits.container);
            }
            // Whoever comes anew finds room until the last place is taken.
            let stranger = queue.what_is_full(&place("stranger", "c", "r"));
            prop_assert_eq!(stranger.is_some(), running.len() >= limits.node);
        }
    }

    #[test]
    fn each_other_user_is_served_once_at_most_before_ones_first_request(pushed in prop::collection::vec(0..5_usize, 1..100)) {
        let mut queue = FairQueue::new(node(1));
        // Whom each of those that wait has seen served since it came first of its requester.
        let mut passed: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (n, who) in pushed.into_iter().enumerate() {
            let who = format!("r{who}");
            passed.entry(who.clone()).or_default();
            queue.push(&ticket_of(place("a", "c", &who), i64::try_from(n).unwrap_or(0), &n.to_string()), who);
            if n % 2 == 1 && let Some(served) = queue.pop() {
                queue.done(&place("a", "c", &served));
                passed.remove(&served);
                if queue.namespaces.get("a").is_some_and(|lane| lane.requesters.contains_key(&served)) {
                    passed.insert(served.clone(), BTreeMap::new());
                }
                for seen in passed.iter_mut().filter(|(who, _)| **who != served).map(|(_, seen)| seen) {
                    let times = seen.entry(served.clone()).or_default();
                    *times += 1;
                    prop_assert!(*times <= 1, "{served} was served twice");
                }
            }
        }
    }
}
