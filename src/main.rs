//! The `switchover` binary: command line and composition root.

fn main() {}
