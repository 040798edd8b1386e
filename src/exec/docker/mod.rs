//! Executor `docker`: a fresh container for each step, with its companions on a network of their own.
