//! Server settings: file and environment, parsed once.
