//! The stand-in GitHub and the sample repositories: what `switchover demo` and the tests run against.

pub mod counter;
pub mod github;
pub mod load;
pub mod play;
