//! Megatron-Core's form of a network, and MindSpore's of the same: one table joins their names.
//!
//! Megatron stacks layers, and in these experts, along leading dimensions, has all gates before all ups, and
//! calls norms and an optimizer's states otherwise. No model need be known: names and shapes tell.
//!
//! *Absent on purpose*: files; what query, key and value in one are made of, which is the same on both sides.

mod layered;
mod names;
mod rows;
mod stacked;
mod unstack;

pub use layered::{is_layered_for, layered, set_aside};
pub use rows::Rows;
pub use stacked::{REMAKE, spread, stack};
pub use unstack::unstack;
