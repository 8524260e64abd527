//! The `shardloom` program.

fn main() {}
