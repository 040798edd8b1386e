//! Executors, checkout, caches, log capture, test reports.
