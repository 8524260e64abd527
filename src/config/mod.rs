//! The keys of a trainer's configuration that concern weights.

pub mod edit;
pub mod train_yaml;
