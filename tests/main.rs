//! All tests that start the program or call the library: `cargo test --test all NAME` runs what a file holds.
//!
//! One binary of them all is built and linked once. What is said of the sources themselves is in `tidy.rs` and `picture.rs`.

// A failure here is a failed test.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]
#![allow(unreachable_pub)]

mod support;

mod amplified;
mod bench;
mod beside;
mod checkpoint2;
mod checkpoints;
mod cli;
mod cluster;
mod computed;
mod derive;
mod faults;
mod filesystem;
mod fits;
mod formats;
mod fuzz;
mod golden;
mod hostile;
mod huggingface;
mod integrity;
mod laid;
mod library;
mod limits;
mod load;
mod megatron;
mod messages;
mod metadata;
mod model;
mod monitor;
mod mpi;
mod names;
mod old;
mod overwrite;
mod parts;
mod power;
mod private;
mod property;
mod proved;
mod repair;
mod runs_at_once;
mod simulate;
mod states;
mod strategy;
mod strategy_property;
mod strategy_ranks;
mod trained;
mod training;
mod unsaved;
mod which;
mod worlds;
