//! The requests of batches, as their records tell of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    event::{Event, Verb},
    key,
};
use crate::{
    api::Reason,
    core::ids::{BatchUid, RequestUid},
};

/// A request of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) uid: RequestUid,
    /// Namespace and name.
    pub(super) batch: String,
    pub(super) plan: i64,
    pub(super) index: i64,
    pod: Option<String>,
    pub(super) started: bool,
    /// A record of its end says that it ran, or may have.
    ran: bool,
    pub(super) ended: bool,
    pub(super) succeeded: bool,
    /// Another request of the batch had its pod before: it was not started, and tells how that one ended.
    is_second: bool,
}

impl Member {
    fn of(uid: &RequestUid, events: &[&Event]) -> Option<(BatchUid, Self)> {
        let of_batch = events.iter().find(|event| event.note(key::BATCH_UID).is_some())?;
        let end = |wanted: &dyn Fn(&Event) -> bool| events.iter().any(|event| event.verb.is_end() && wanted(event));
        let started = |event: &&&Event| event.verb == Verb::Started;
        let pods = events.iter().filter(started).chain(events.iter().rev());
        let member = Self {
            uid: uid.clone(),
            batch: format!("{}/{}", of_batch.object_ref.as_ref()?.namespace, of_batch.note(key::BATCH)?),
            plan: of_batch.number(key::BATCH_PLAN)?,
            index: of_batch.number(key::BATCH_INDEX)?,
            pod: pods.clone().find_map(|event| event.note(key::POD_UID)).map(str::to_owned),
            started: events.iter().any(|event| event.verb == Verb::Started),
            ran: end(&|event| event.note(key::RAN) == Some("true") || event.note(key::EXIT_CODE).is_some()),
            ended: end(&|_| true),
            succeeded: end(&|event| event.note(key::REASON) == Some(Reason::Completed.as_str())),
            is_second: false,
        };
        Some((of_batch.note(key::BATCH_UID)?.into(), member))
    }

    /// Whether its own records say that its command ran.
    pub(super) const fn says_it_ran(&self) -> bool {
        self.started || (self.ran && !self.is_second)
    }
}

#[derive(Debug, Default)]
pub(super) struct Members(pub(super) BTreeMap<BatchUid, Vec<Member>>);

impl Members {
    pub(super) fn of(sets: &BTreeMap<RequestUid, Vec<&Event>>) -> Self {
        let mut batches: BTreeMap<BatchUid, Vec<Member>> = BTreeMap::new();
        for (uid, events) in sets {
            if let Some((batch, member)) = Member::of(uid, events) {
                batches.entry(batch).or_default().push(member);
            }
        }
        for members in batches.values_mut() {
            let taken: BTreeSet<String> =
                members.iter().filter(|member| member.started).filter_map(|member| member.pod.clone()).collect();
            for member in members {
                member.is_second = !member.started && member.pod.as_ref().is_some_and(|pod| taken.contains(pod));
            }
        }
        Self(batches)
    }

    /// Those that were not started, because another one of the batch had their pod.
    pub(super) fn seconds(&self) -> BTreeSet<RequestUid> {
        let all = self.0.values().flatten().filter(|member| member.is_second);
        all.map(|member| member.uid.clone()).collect()
    }
}

/// Which ran more than once: each index, and each pod, with the requests as which it did.
pub(super) fn twice(members: &[Member]) -> Vec<String> {
    let mut ran: BTreeMap<(&str, String), BTreeSet<&RequestUid>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.started) {
        ran.entry(("index", member.index.to_string())).or_default().insert(&member.uid);
        if let Some(pod) = &member.pod {
            ran.entry(("pod", pod.clone())).or_default().insert(&member.uid);
        }
    }
    let twice = ran.into_iter().filter(|(_, requests)| requests.len() > 1);
    let told = twice.map(|((what, which), requests)| {
        let requests: Vec<&str> = requests.into_iter().map(RequestUid::as_str).collect();
        format!("{what} {which} ran {} times: as requests {}", requests.len(), requests.join(" and "))
    });
    told.collect()
}
