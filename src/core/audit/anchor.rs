//! Anchors: the published heads against which chains are held, and who vouches for which chain.
//!
//! A log is in the hands of whom it may show up, with every name in it. So an anchor comes from elsewhere, and
//! says itself for whom it speaks: an agent's Lease for that agent, the managers' Lease for managers, and none
//! for a name that is merely like one of these.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use thiserror::Error;

use super::chain::{Head, NotAHead, Published};
use crate::api::names::{AGENT_LEASE_PREFIX, AUDIT_HEADS_ANNOTATION, LEADER_LEASE};

const AGENT: &str = "agent/";
const MANAGER: &str = "manager/";

/// Whether an agent or a manager can have this name: `agent/NODE`, `manager/POD` or `manager/POD@TIME`.
pub fn is_writer(name: &str) -> bool {
    let is = |text: &str, more: &[u8]| {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || more.contains(&byte);
        !text.is_empty() && text.bytes().all(fine)
    };
    if let Some(node) = name.strip_prefix(AGENT) {
        return is(node, b"-.");
    }
    let Some(manager) = name.strip_prefix(MANAGER) else { return false };
    let (pod, time) = manager.split_once('@').map_or((manager, None), |(pod, time)| (pod, Some(time)));
    is(pod, b"-.") && time.is_none_or(|time| is(time, b"-+:.TZ"))
}

#[derive(Debug, Error)]
pub enum NotAnAnchor {
    #[error("it has a {0:?} where a Lease was expected: kubectl get leases -o yaml")]
    NotALease(String),
    #[error("Lease {0}: its annotation {AUDIT_HEADS_ANNOTATION} cannot be read: {1}")]
    Unreadable(String, serde_json::Error),
    #[error("Lease {0}: the head of {1:?}: {2}")]
    NotAHead(String, String, NotAHead),
    #[error("Lease {0} names the head of {1:?}, for which it does not speak: somebody else wrote into it")]
    ForAnother(String, String),
    #[error(
        "Lease {0} has heads of audit logs, and is neither {LEADER_LEASE} nor {AGENT_LEASE_PREFIX}NODE: it speaks for nobody"
    )]
    ForNobody(String),
    #[error("the Leases are of the namespaces {0} and {1}: give those of execlet's own namespace only")]
    TwoNamespaces(String, String),
}

/// Published heads, by writer: all that are known, of one time or another.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    namespace: Option<String>,
    heads: BTreeMap<String, BTreeSet<(u64, String)>>,
    /// Whose head was looked for, or is known not to be there.
    silent: BTreeSet<String>,
}

impl Anchors {
    /// Takes the heads in a Lease, or in a list of Leases, as kubectl prints them. Leases of others are passed over.
    pub fn add(&mut self, object: &Value) -> Result<(), NotAnAnchor> {
        if let Some(items) = object["items"].as_array() {
            return items.iter().try_for_each(|item| self.add(item));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Between two separators of documents.
        if object.is_null() {
            return Ok(());
        }
        if object["kind"] != "Lease" {
            return Err(NotAnAnchor::NotALease(text(&object["kind"])));
        }
        let meta = &object["metadata"];
        let (lease, namespace) = (text(&meta["name"]), text(&meta["namespace"]));
        let node = lease.strip_prefix(AGENT_LEASE_PREFIX);
        let heads = &meta["annotations"][AUDIT_HEADS_ANNOTATION];
        let ours = node.is_some() || lease == LEADER_LEASE;
        match (ours, heads.as_str()) {
            (false, None) => return Ok(()),
            (false, Some(_)) => return Err(NotAnAnchor::ForNobody(lease)),
            (true, _) => {}
        }
        match &self.namespace {
            Some(other) if *other != namespace => {
                return Err(NotAnAnchor::TwoNamespaces(other.clone(), namespace));
            }
            Some(_) | None => self.namespace = Some(namespace),
        }
        let agent = node.map(|node| format!("{AGENT}{node}"));
        let Some(heads) = heads.as_str() else {
            self.silent.extend(agent);
            return Ok(());
        };
        let all: Vec<Published> =
            serde_json::from_str(heads).map_err(|error| NotAnAnchor::Unreadable(lease.clone(), error))?;
        for Published { writer, head } in all {
            let speaks =
                agent.as_ref().map_or_else(|| writer.starts_with(MANAGER) && is_writer(&writer), |own| writer == *own);
            if !speaks {
                return Err(NotAnAnchor::ForAnother(lease, writer));
            }
            let head: Head =
                head.parse().map_err(|error| NotAnAnchor::NotAHead(lease.clone(), writer.clone(), error))?;
            self.heads.entry(writer).or_default().insert((head.sequence, head.sha256));
        }
        Ok(())
    }

    /// Keeps those of these writers, each of whom must have one.
    pub fn only(&mut self, writers: BTreeSet<String>) {
        self.heads.retain(|writer, _| writers.contains(writer));
        self.silent = writers;
    }

    pub fn of(&self, writer: &str) -> Vec<Head> {
        let all = self.heads.get(writer).into_iter().flatten();
        all.map(|(sequence, sha256)| Head { sequence: *sequence, sha256: sha256.clone() }).collect()
    }

    /// Who has a head, and how far the latest says that its chain had come.
    pub fn writers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.heads.iter().map(|(writer, heads)| (writer.as_str(), heads.last().map_or(0, |(sequence, _)| *sequence)))
    }

    /// Who should have a head, and has none.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        self.silent.iter().map(String::as_str).filter(|writer| !self.heads.contains_key(*writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writers_name_is_one_that_an_agent_or_a_manager_can_have() {
        for name in [
            "agent/n1",
            "agent/node-1.example.org",
            "manager/execlet-manager-5d-x7",
            "manager/m@2026-11-30T08:11:00.5Z",
        ] {
            assert!(is_writer(name), "{name:?}");
        }
        for name in [
            "",
            "agent/",
            "agent",
            "agent/n1 ",
            " agent/n1",
            "Agent/n1",
            "agent/N1",
            "agent/n1\n",
            "agent/n/1",
            "agent/n1@1",
            "manager/",
            "manager/m@",
        ] {
            assert!(!is_writer(name), "{name:?}");
        }
    }
}
