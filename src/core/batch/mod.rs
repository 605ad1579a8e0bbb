//! A batch: one command over many pods, by plan, freeze and release.
//!
//! Pure. In the order of a batch's life:
//!
//! | file | what |
//! |---|---|
//! | `targets` | which pods are targets, and in which order |
//! | `rights` | what the requester must be allowed to do |
//! | `plan` | whether the targets may be planned, and what makes a plan this one: its digest |
//! | `child` | the request of one target |
//! | `held` | that request held against its batch, by the agent |
//! | `share` | how many: of a number, or of a share of all |
//! | `seen` | what is known of a child, and what is found when it is looked at |
//! | `ledger`, `indexes`, `end` | how each index ended, and the sets in the status |
//! | `situation` | a batch whose plan is frozen, parsed once |
//! | `stop` | why nothing more is released, for good or for now |
//! | `step` | what is to be done now |
//! | `pace` | how often a child that waits is looked at |
//! | `advance` | what the status says then: what is folded, what is released, whether it is over |
//! | `status` | the status writes |
//! | `groups` | which ended the same |
//! | `told` | which Events there are of its children |
//! | `expiry` | when a finished one is deleted |
//! | `sweep` | which children never belonged to a plan that counts |

pub mod advance;
pub mod child;
pub mod end;
pub mod expiry;
pub mod groups;
pub mod held;
pub mod indexes;
pub mod ledger;
pub mod pace;
pub mod plan;
pub mod rights;
pub mod seen;
pub mod share;
pub mod situation;
pub mod status;
pub mod step;
pub mod stop;
pub mod sweep;
pub mod targets;
pub mod told;

#[cfg(test)]
mod fixture;

/// Most targets of a batch; their indexes are below it.
pub const MOST_TARGETS: u16 = 10_000;
