//! The verbs, one file each.

pub mod approve;
pub mod attach;
pub mod cancel;
pub mod completion;
pub mod describe;
pub mod get;
pub mod logs;
pub mod replay;
pub mod report;
pub mod rerun;
pub mod resume;
pub mod run;
pub mod version;
pub mod wait;
