use serde_json::{Value, json};

use super::*;
use crate::core::batch::fixture::pod;

fn targets(fields: &Value) -> Targets {
    serde_json::from_value(fields.clone()).expect("targets")
}

fn names(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|target| target.pod.as_str()).collect()
}

fn with(mut pod: Pod, change: &Value) -> Pod {
    let mut value = serde_json::to_value(&pod).expect("JSON");
    for (path, field) in change.as_object().expect("fields") {
        let (parent, name) = path.rsplit_once('/').expect("a path");
        value.pointer_mut(parent).expect("a parent")[name] = field.clone();
    }
    pod = serde_json::from_value(value).expect("a pod");
    pod
}

#[test]
fn names_are_ordered_with_numbers_as_numbers() {
    let mut names = ["db-10", "db-2", "db", "db-02", "a9b", "a10", "db-2-x", "db-1", "z"];
    names.sort_by(|one, other| natural(one, other));
    assert_eq!(names, ["a9b", "a10", "db", "db-1", "db-02", "db-2", "db-2-x", "db-10", "z"]);
    // Longer than any integer.
    assert_eq!(natural("a99999999999999999999999", "a100000000000000000000000"), Ordering::Less);
}

#[test]
fn what_is_ending_or_has_ended_is_no_target_and_what_does_not_run_yet_is() {
    let pods = [
        pod("web-2", "n1", true),
        with(pod("web-3", "n1", true), &json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"})),
        with(pod("web-4", "n1", true), &json!({"/status/phase": "Succeeded"})),
        with(pod("web-5", "n1", true), &json!({"/status/phase": "Failed"})),
        with(pod("web-10", "n1", true), &json!({"/status/phase": "Pending"})),
        pod("web-1", "n1", false),
    ];
    let all = select(&targets(&json!({"all": true})), &pods);
    assert_eq!(names(&all), ["web-1", "web-2", "web-10"]);
    assert!(all.iter().all(|target| target.fate == Fate::Run));
    assert_eq!(all[0].uid.as_deref(), Some("uid-web-1"));
}

#[test]
fn one_of_several_is_one_that_is_ready() {
    let pods = [pod("a-1", "n1", false), pod("a-2", "n1", true), pod("b-1", "n2", false), pod("c-1", "", true)];
    for (pick, wanted) in
        [("All", vec!["a-1", "a-2", "b-1", "c-1"]), ("OnePerNode", vec!["a-2", "b-1"]), ("One", vec!["a-2"])]
    {
        assert_eq!(names(&select(&targets(&json!({"all": true, "pick": pick})), &pods)), wanted, "{pick}");
    }
    assert_eq!(select(&targets(&json!({"all": true, "pick": "One"})), &[]), []);
}

#[test]
fn named_pods_keep_their_order_and_those_that_are_missing_are_targets_too() {
    let given = json!({"pods": [{"name": "web-2"}, {"name": "gone"}, {"name": "web-1", "uid": "older"}, {"name": "web-3", "uid": "uid-web-3"}, {"name": "gone-too", "uid": "u"}]});
    let found =
        select(&targets(&given), &[pod("web-1", "n1", true), pod("web-2", "n1", true), pod("web-3", "n1", true)]);
    let facts: Vec<_> = found.iter().map(|target| (target.pod.as_str(), target.uid.as_deref(), target.fate)).collect();
    assert_eq!(
        facts,
        [
            ("web-2", Some("uid-web-2"), Fate::Run),
            ("gone", None, Fate::Missing),
            ("web-1", Some("older"), Fate::Replaced),
            ("web-3", Some("uid-web-3"), Fate::Run),
            ("gone-too", Some("u"), Fate::Missing),
        ]
    );
}

#[test]
fn the_pods_of_a_workload_are_found_through_all_of_its_replica_sets() {
    let owned = |name: &str, owner: &str, controller: bool| {
        let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": owner, "controller": controller}]);
        with(pod(name, "n1", true), &json!({"/metadata/ownerReferences": owners}))
    };
    let pods = vec![
        owned("old", "rs-1", true),
        owned("new", "rs-2", true),
        owned("of-another", "rs-3", true),
        owned("only-held", "rs-1", false),
        owned("direct", "deployment", true),
        pod("free", "n1", true),
    ];
    let owners = [("rs-1", "deployment"), ("rs-2", "deployment"), ("rs-3", "other")];
    let owners = owners.map(|(one, above)| (one.to_owned(), above.to_owned())).into();
    let found = of_workload(pods, "deployment", &owners);
    assert_eq!(found.iter().map(name).collect::<Vec<_>>(), ["old", "new", "direct"]);
}

#[test]
fn a_selector_is_written_as_the_api_server_reads_it() {
    let selector = json!({
        "matchLabels": {"app": "shop", "tier": "web"},
        "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]},
            {"key": "zone", "operator": "NotIn", "values": ["c"]},
            {"key": "x.io/y", "operator": "Exists"},
            {"key": "z", "operator": "DoesNotExist"},
        ],
    });
    let selector: PodSelector = serde_json::from_value(selector).expect("a selector");
    assert_eq!(selector_text(&selector), "app=shop,tier=web,zone in (a,b),zone notin (c),x.io/y,!z");
}
