//! Keys of a record's annotations; `docs/audit.md` explains them.

pub const WRITER: &str = "execlet.dev/writer";
pub const SEQUENCE: &str = "execlet.dev/sequence";
pub const PREVIOUS: &str = "execlet.dev/previous";
pub const CUT_BYTES: &str = "execlet.dev/cut-bytes";
pub const CUT_SHA256: &str = "execlet.dev/cut-sha256";
pub const LOST: &str = "execlet.dev/lost";
pub const PUBLISHED: &str = "execlet.dev/published-head";
pub const PUBLISHED_MISSING: &str = "execlet.dev/published-head-missing";
pub const VERSION: &str = "execlet.dev/version";

pub const POD: &str = "execlet.dev/pod";
pub const POD_UID: &str = "execlet.dev/pod-uid";
pub const CONTAINER: &str = "execlet.dev/container";
pub const CONTAINER_ID: &str = "execlet.dev/container-id";
pub const IMAGE: &str = "execlet.dev/image";
pub const NODE: &str = "execlet.dev/node";
pub const EXEC_ID: &str = "execlet.dev/exec-id";

pub const COMMAND: &str = "execlet.dev/command";
pub const COMMAND_SHA256: &str = "execlet.dev/command-sha256";
pub const ARGUMENTS_LEFT_OUT: &str = "execlet.dev/arguments-left-out";
pub const ENV: &str = "execlet.dev/env";
pub const ENV_LEFT_OUT: &str = "execlet.dev/env-left-out";
pub const ENV_SHA256: &str = "execlet.dev/env-sha256";
pub const CLAIMED_USER: &str = "execlet.dev/claimed-user";
pub const USER_INFO_SHA256: &str = "execlet.dev/user-info-sha256";
pub const USER: &str = "execlet.dev/user";
pub const STDIN: &str = "execlet.dev/stdin";
pub const REQUEST_REASON: &str = "execlet.dev/request-reason";

pub const REASON: &str = "execlet.dev/reason";
pub const MESSAGE: &str = "execlet.dev/message";
pub const RAN: &str = "execlet.dev/ran";
pub const EXIT_CODE: &str = "execlet.dev/exit-code";
pub const EXIT_CODE_SOURCE: &str = "execlet.dev/exit-code-source";
pub const OUTPUT_COMPLETE: &str = "execlet.dev/output-complete";
pub const STDOUT_BYTES: &str = "execlet.dev/stdout-bytes";
pub const STDOUT_SHA256: &str = "execlet.dev/stdout-sha256";
pub const STDERR_BYTES: &str = "execlet.dev/stderr-bytes";
pub const STDERR_SHA256: &str = "execlet.dev/stderr-sha256";
pub const SESSION: &str = "execlet.dev/session";

/// Of a request of a batch: the batch, and its place there. `BATCH_PLAN` also of the batch's own records.
pub const BATCH: &str = "execlet.dev/batch";
pub const BATCH_UID: &str = "execlet.dev/batch-uid";
pub const BATCH_PLAN: &str = "execlet.dev/batch-plan";
pub const BATCH_INDEX: &str = "execlet.dev/batch-index";

pub const PLAN_DIGEST: &str = "execlet.dev/plan-digest";
pub const TOTAL: &str = "execlet.dev/total";
pub const APPROVAL_REQUIRED: &str = "execlet.dev/approval-required";
pub const RELEASED_FROM: &str = "execlet.dev/released-from";
pub const RELEASED_TO: &str = "execlet.dev/released-to";
pub const INDEXES: &str = "execlet.dev/indexes";
pub const BY: &str = "execlet.dev/by";
pub const BY_UID: &str = "execlet.dev/by-uid";
pub const CLAIMED_BY: &str = "execlet.dev/claimed-by";

pub const RELEASED: &str = "execlet.dev/released";
pub const SUCCEEDED: &str = "execlet.dev/succeeded";
pub const FAILED: &str = "execlet.dev/failed";
pub const NOT_RUN: &str = "execlet.dev/not-run";
pub const UNKNOWN: &str = "execlet.dev/unknown";
pub const SKIPPED: &str = "execlet.dev/skipped";
