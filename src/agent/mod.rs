//! The data plane of one host: listeners, routes, supervised processes; its unix-socket protocol.

pub mod protocol;
