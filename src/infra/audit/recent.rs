//! What was recorded a moment ago. A step that fails is repeated with its record, which says nothing new.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::core::audit::{event::Event, key};

/// More than are repeated at a time.
const RECENT: usize = 1024;

#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<String>>>);

impl Recent {
    /// Whether this act was recorded, even if in other words.
    pub(super) fn has(&self, act: &str) -> bool {
        self.0.lock().iter().rev().any(|known| known == act)
    }

    pub(super) fn add(&self, act: String) {
        let mut acts = self.0.lock();
        if acts.len() >= RECENT {
            acts.pop_front();
        }
        acts.push_back(act);
    }
}

/// The act that a record is about. An end with another code is another act.
pub(super) fn act(event: &Event) -> String {
    format!("{} {}", event.audit_id, event.note(key::EXIT_CODE).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_acts_are_remembered() {
        let recent = Recent::default();
        for number in 0..=RECENT {
            recent.add(number.to_string());
        }
        assert_eq!([0, 1, RECENT].map(|number| recent.has(&number.to_string())), [false, true, true]);
        assert_eq!(recent.0.lock().len(), RECENT);
    }
}
