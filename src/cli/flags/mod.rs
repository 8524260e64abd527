//! The flags that several commands take, each written once, in groups that a command flattens.
//!
//! *Absent on purpose*: a group of all flags. A command takes the groups that it can obey, so that
//! any other flag is wrong usage.

pub(crate) mod affix;
pub(crate) mod amount;
pub(crate) mod carried;
pub(crate) mod choice;
pub(crate) mod family;
pub(crate) mod lora;
pub(crate) mod measuring;
pub(crate) mod moving;
pub(crate) mod name_map;
pub(crate) mod planned;
pub(crate) mod quantise;
pub(crate) mod reading;
pub(crate) mod remake;
pub(crate) mod report;
pub mod size;
pub(crate) mod step;
pub(crate) mod strategy;
pub(crate) mod tensors;
pub(crate) mod writing;
