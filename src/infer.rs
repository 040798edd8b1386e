//! Apps and steps inferred from the files that are there.
