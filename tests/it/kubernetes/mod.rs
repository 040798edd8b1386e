//! The executor `kubernetes`, on a real cluster.

mod exec;
mod files;
mod outage;
mod rig;
mod rights;
mod story;
mod trouble;
mod words;
