//! Gate: a request is prepared only if it was created and bound while the admission policies stood.
//!
//! The manager binds nothing otherwise. But the policies also keep others from writing a binding: while one is missing,
//! whoever RBAC lets can write one, and only the agent is left to see it.

use tokio::{sync::Mutex, time::Instant};

use crate::{
    core::admission::{self, Admission, Mode, Record},
    infra::policies::{Policies, Rules},
};

pub struct Gate {
    rules: Option<(Rules, Policies)>,
    /// When the last look began, and what it found. Locked during a look.
    last: Mutex<Option<(Instant, Admission)>>,
}

impl Gate {
    pub fn new(rules: Rules, policies: Policies) -> Self {
        Self { rules: Some((rules, policies)).filter(|(rules, _)| rules.mode != Mode::Off), last: Mutex::default() }
    }

    /// For an installation without policies.
    pub fn off() -> Self {
        Self { rules: None, last: Mutex::default() }
    }

    /// How the policies stand from now on. Callers that ask at once get one answer, of a look that began after they asked.
    pub(super) async fn look(&self) -> Admission {
        let Some((rules, policies)) = &self.rules else { return Admission::Off };
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(begun, _)| *begun >= asked) {
            return found.clone();
        }
        let begun = Instant::now();
        let found = rules.judge(read(rules, policies)).await;
        *last = Some((begun, found.clone()));
        found
    }
}

async fn read(rules: &Rules, policies: &Policies) -> Result<Record, String> {
    let (found, record) = tokio::try_join!(policies.stand(&rules.expected), policies.recorded())?;
    let versions = admission::versions(found.iter());
    record
        .filter(|record| record.versions == versions)
        .ok_or_else(|| "the manager has not yet seen the admission policies as they stand".to_owned())
}
