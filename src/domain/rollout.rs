//! The pure blue/green state machine.
