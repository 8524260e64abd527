//! The keys of a trainer's configuration that concern weights.
//!
//! *Absent on purpose*: files and processes: text in, text out; keys that don't concern weights.

pub mod asked;
pub mod based;
pub mod checkpoint_section;
pub mod edit;
pub mod job_yaml;
mod misspelt;
mod no_yaml;
pub mod sections;
pub mod train_yaml;
