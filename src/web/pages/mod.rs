//! What people see in a browser: data in, HTML out. The store is not known here; who knows it implements [`Source`].
//!
//! * [`layout`]: what stands around every page, the security headers, the guard against forms of other sites.
//! * [`pieces`]: state, sha, time, duration, release line.
//! * [`run`]: a run and its logs; [`log`], [`ansi`]: lines, windows, colours.
//! * [`release`]: a release; [`overview`]: all of it; [`error`]: what went wrong, why, what to do next.
//! * [`routes`]: the addresses.

pub mod ansi;
pub mod error;
pub mod layout;
pub mod log;
pub mod overview;
pub mod pieces;
pub mod release;
pub mod routes;
pub mod run;

pub use crate::domain::show::{ReleaseLine, release_line_text};
pub use error::ErrorPage;
pub use log::{LogLine, LogWindow};
pub use overview::OverviewPage;
pub use release::ReleasePage;
pub use routes::{Source, configure};
pub use run::RunPage;
