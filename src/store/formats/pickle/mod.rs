//! Pickles read as data: PyTorch's, of protocols 2 to 5.
//!
//! A pickle is a program that builds values and may call anything. Here it builds nodes in one list, and a
//! call is a node that says who was called with what: nothing is ever run. Whoever is named must be on the
//! list in [`allowed`]; some of these mean something to the readers of tensors, the others are carried
//! without a meaning. What is kept is at most a small multiple of the pickle's own length.
//!
//! *Absent on purpose*: recursion over values, so depth costs nothing; opcodes that no such file has.

mod allowed;
mod machine;
mod stack;
#[cfg(test)]
mod tests;
mod value;

pub(super) use machine::read;
pub(super) use value::{Made, Node, Pickle, Value};
