use serde_json::json;

use super::*;

fn accounts() -> Accounts {
    let account = |text: &str| text.parse().expect("an account");
    Accounts { manager: account("system-x:execlet-manager"), agent: account("system-x:execlet-agent") }
}

fn all() -> Vec<Expected> {
    expected(Mode::Stamped, &accounts()).expect("policies")
}

fn found(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).expect("an object")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

#[test]
fn every_policy_comes_with_its_binding() {
    let names: Vec<String> = all().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "mutatingadmissionpolicy/execlet-stamp",
            "mutatingadmissionpolicybinding/execlet-stamp",
            "mutatingadmissionpolicy/execlet-batch-stamp",
            "mutatingadmissionpolicybinding/execlet-batch-stamp",
            "validatingadmissionpolicy/execlet-create",
            "validatingadmissionpolicybinding/execlet-create",
            "validatingadmissionpolicy/execlet-status",
            "validatingadmissionpolicybinding/execlet-status",
            "validatingadmissionpolicy/execlet-agent",
            "validatingadmissionpolicybinding/execlet-agent",
            "validatingadmissionpolicy/execlet-manager",
            "validatingadmissionpolicybinding/execlet-manager",
            "validatingadmissionpolicy/execlet-batch",
            "validatingadmissionpolicybinding/execlet-batch",
        ]
    );
    assert_eq!(expected(Mode::Guarded, &accounts()).expect("policies")[..], all()[4..]);
    assert!(expected(Mode::Off, &accounts()).expect("none").is_empty());
    for it in all() {
        let policy = it.object["spec"]["policyName"].as_str().unwrap_or(&it.name).to_owned();
        assert_eq!(it.name, policy, "a binding is named like its policy");
        assert!(it.resource.plural.ends_with('s'), "{}", it.resource.plural);
    }
}

#[test]
fn the_accounts_are_filled_in_and_no_other_place_is_left() {
    let text = serde_json::to_string(&all().iter().map(|it| &it.object).collect::<Vec<_>>()).expect("JSON");
    for name in ["system:serviceaccount:system-x:execlet-manager", "system:serviceaccount:system-x:execlet-agent"] {
        assert!(text.contains(name), "{name}");
    }
    assert!(!text.contains('@'), "a place that was not filled in");
    for bad in ["execlet", ":a", "a:", "a:b'", "a:B", "a:b:c"] {
        assert!(bad.parse::<ServiceAccount>().is_err(), "{bad}");
    }
}

#[test]
fn what_the_api_server_fills_in_is_no_difference() {
    for it in all() {
        let mut object = it.object.clone();
        object["metadata"]["labels"] = json!({"helm.sh/chart": "execlet-9"});
        if !object["spec"]["matchConstraints"].is_null() {
            object["spec"]["matchConstraints"]["namespaceSelector"] = json!({});
            object["spec"]["matchConstraints"]["objectSelector"] = json!({});
        }
        object["status"] = json!({"observedGeneration": 1, "typeChecking": {}});
        assert_eq!(it.check(Some(&found(&object))), Ok(()), "{it}");
    }
}

/// Every value in the spec of every policy, changed or left out, and some added.
#[test]
fn any_change_is_seen_and_its_place_named() {
    fn places(path: &str, value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    into.push(format!("{path}/{name}"));
                    places(&format!("{path}/{name}"), field, into);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    into.push(format!("{path}/{index}"));
                    places(&format!("{path}/{index}"), item, into);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut changes = 0;
    for it in all() {
        let mut paths = Vec::new();
        places("/spec", &it.object["spec"], &mut paths);
        for path in &paths {
            for other in [Value::Null, json!("other"), json!(["*"])] {
                let mut object = it.object.clone();
                let place = object.pointer_mut(path).expect("a place");
                if *place == other {
                    continue;
                }
                *place = other;
                let why = it.check(Some(&found(&object))).expect_err(path);
                assert!(why.contains("was altered: spec."), "{why}");
                changes += 1;
            }
        }
        for (field, value) in [
            ("matchConditions", json!([{"name": "never", "expression": "false"}])),
            ("paramKind", json!({"apiVersion": "v1", "kind": "ConfigMap"})),
            ("matchResources", json!({"namespaceSelector": {"matchLabels": {"a": "b"}}})),
            ("aFieldOfTomorrow", json!(true)),
        ] {
            let mut object = it.object.clone();
            object["spec"][field] = value;
            let why = it.check(Some(&found(&object))).expect_err(field);
            assert!(why.contains(&format!("spec.{field}")), "{why}");
        }
        assert_eq!(it.check(None), Err(format!("{it} is missing")));
    }
    assert!(changes > 200, "{changes}");
}

fn meta(uid: &str, generation: i64, created: i64) -> ObjectMeta {
    serde_json::from_value(json!({
        "uid": uid, "generation": generation, "creationTimestamp": at(created),
        "managedFields": [{"time": at(created + 5), "manager": "helm", "operation": "Apply"}],
    }))
    .expect("metadata")
}

#[test]
fn a_record_holds_for_as_long_as_nobody_touches_a_policy() {
    let first = Record::seen(None, versions([meta("a", 1, 0), meta("b", 1, 0)].iter()), None, at(100));
    assert_eq!(first.since, at(100));
    let again = |metas: [ObjectMeta; 2]| Record::seen(Some(&first), versions(metas.iter()), None, at(900)).since;
    assert_eq!(again([meta("a", 1, 0), meta("b", 1, 0)]), at(100), "the same ones");
    assert_eq!(again([meta("a", 1, 0), meta("b", 3, 0)]), at(900), "one was altered and put back");
    assert_eq!(again([meta("c", 1, 0), meta("b", 1, 0)]), at(900), "one was deleted and created again");
    let text = serde_json::to_string(&first).expect("JSON");
    assert_eq!(serde_json::from_str::<Record>(&text).expect("a record"), first);
}

#[test]
fn an_upgrade_that_writes_each_policy_once_is_no_new_beginning() {
    let record = |versions: &str| Record { since: at(100), versions: versions.to_owned() };
    for (before, now, since) in [
        ("a@1 b@1", "a@2 b@1", 100),
        ("a@1 b@1", "a@2 b@2", 100),
        ("a@1 b@1", "b@1 a@1", 100),
        // Altered, and put back or upgraded.
        ("a@1 b@1", "a@3 b@1", 900),
        // An older state was restored.
        ("a@2 b@1", "a@1 b@1", 900),
        ("a@1 b@1", "c@1 b@1", 900),
        ("a@1 b@1", "a@1 b@1 c@1", 900),
        ("a@1 b@1", "a@1", 900),
        ("a@1 b@1", "a@1 a@1", 900),
        ("a@1", "a@", 900),
        ("@1", "@2", 900),
        ("", "a@1", 900),
        ("a@9223372036854775807", "a@-9223372036854775808", 900),
    ] {
        let seen = Record::seen(Some(&record(before)), now.to_owned(), None, at(900));
        assert_eq!((seen.since, seen.versions.as_str()), (at(since), now), "{before} to {now}");
    }
}

#[test]
fn stamp_and_guard_of_batches_mean_the_same_by_letting_run_and_by_approving() {
    let variables = |name: &str| {
        let all = all();
        let policy = all.iter().find(|it| it.to_string() == name).expect(name);
        let list = policy.object["spec"]["variables"].as_array().expect("variables").clone();
        list.into_iter().map(|it| (it["name"].to_string(), it["expression"].clone())).collect::<Vec<_>>()
    };
    let guard = variables("validatingadmissionpolicy/execlet-batch");
    let stamp = variables("mutatingadmissionpolicy/execlet-batch-stamp");
    let differs: Vec<_> = stamp.iter().filter(|variable| !guard.contains(variable)).collect();
    assert!(stamp.len() > 5 && differs.is_empty(), "{differs:?}");
}

#[test]
fn an_api_server_whose_clock_is_ahead_is_believed() {
    let changed = last_change([meta("a", 1, 10), meta("b", 1, 200)].iter());
    assert_eq!(changed, Some(at(205)));
    assert_eq!(Record::seen(None, String::new(), changed, at(100)).since, at(205));
    assert_eq!(Record::seen(None, String::new(), changed, at(300)).since, at(300));
}

#[test]
fn policies_count_from_a_margin_after_they_were_seen() {
    let record = Record { since: at(100), versions: String::new() };
    assert_eq!(Admission::since(&record, SignedDuration::from_secs(10)), Admission::Since(at(110)));
}
