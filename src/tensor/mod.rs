//! One tensor's geometry and bytes. Knows no file, no layout and no process.

pub mod arithmetic;
pub mod cast;
pub mod copy;
pub mod digest;
pub mod dtype;
mod fold;
pub mod number;
pub mod region;
pub mod shape;
pub mod strided;
