//! Tests of the room `tidy`.
