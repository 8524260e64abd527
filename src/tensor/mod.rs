//! One tensor's geometry and bytes. Knows no file, no layout and no process.
//!
//! *Absent on purpose*: files, processes and clocks; a layout: where a tensor's bytes come from and
//! go to is no matter here.

pub mod arithmetic;
pub mod cast;
pub mod copy;
pub mod digest;
pub mod dtype;
pub mod figures;
mod fold;
pub mod gathered;
pub mod number;
pub mod quantise;
pub mod region;
mod residue;
pub mod shape;
pub mod strided;
pub mod window;
