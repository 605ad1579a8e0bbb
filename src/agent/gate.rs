//! The agent's gate: what is prepared was created, and bound, while the admission policies stood.
//!
//! The manager binds nothing otherwise. But the policies are also what keeps others from writing a
//! binding: while one is away, whoever has the right by RBAC can, and only the agent is left to see it.

use tokio::{sync::Mutex, time::Instant};

use crate::{
    core::admission::{self, Admission, Mode, Record},
    infra::policies::{Policies, Rules},
};

/// Where to ask.
pub struct Gate {
    rules: Option<(Rules, Policies)>,
    /// What was found last, by a look that began then. Held while it is looked.
    last: Mutex<Option<(Instant, Admission)>>,
}

impl Gate {
    /// One that looks at these policies.
    pub fn new(rules: Rules, policies: Policies) -> Self {
        Self { rules: Some((rules, policies)).filter(|(rules, _)| rules.mode != Mode::Off), last: Mutex::default() }
    }

    /// The one of an installation that has none.
    pub fn off() -> Self {
        Self { rules: None, last: Mutex::default() }
    }

    /// What can be said of the policies from now on. Many who ask at once get the same answer, by a
    /// look that began after they had asked.
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
