//! Targets and the prober: how a release gets live without losing a request.
