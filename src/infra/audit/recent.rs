//! What was recorded a moment ago. A step that fails is tried again, with what it
//! records; that tells nothing new.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::core::audit::{event::Event, key};

/// Acts that are remembered: more than are tried again at a time.
const RECENT: usize = 1024;

/// The acts that were recorded last.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<String>>>);

impl Recent {
    /// Whether the act that a record tells of, and be it in other words, was recorded.
    pub(super) fn has(&self, act: &str) -> bool {
        self.lock().iter().rev().any(|known| known == act)
    }

    pub(super) fn add(&self, act: String) {
        let mut acts = self.lock();
        if acts.len() >= RECENT {
            acts.pop_front();
        }
        acts.push_back(act);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock()
    }
}

/// Which act a record tells of. An end is another one if it has another code.
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
        assert_eq!(recent.lock().len(), RECENT);
    }
}
