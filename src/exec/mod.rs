//! Executors, checkout, caches, log capture, test reports.
//!
//! * [`git`]: one bare mirror per repository and pooled worktrees, by the git command line.
//! * [`local`]: the trait [`local::Executor`] and the executor that runs steps on the server's own host.
//! * [`docker`]: the executor that runs each step in a container of its own.
//! * [`kubernetes`]: the executor that runs each step as a Job of a cluster.
//! * [`shim`]: the small process that stands between the server and a step, and outlives neither.
//! * [`log`]: how a step's output lies on disk, its writer and its reader.
//! * [`caches`]: folders kept between runs, apart by app and trust.
//! * [`budget`]: what is kept for speed, within a limit.
//! * [`reports`]: JUnit XML and libtest's text as one `TestReport`.
//! * [`host`]: what processes started here see of the server's own environment.

pub mod budget;
pub mod caches;
mod contained;
pub mod docker;
pub(crate) mod files;
pub mod git;
pub mod host;
mod journal;
pub mod kubernetes;
pub mod limits;
pub mod local;
pub mod log;
pub(crate) mod processes;
pub mod reports;
pub mod shim;
