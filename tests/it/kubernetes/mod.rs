//! The executor `kubernetes`, on a real cluster.

mod exec;
mod files;
mod rig;
mod trouble;
mod words;
