//! How the values of all processes are joined.

/// How [`all_reduce`](super::all_reduce) joins the values of all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Bit by bit: whether an odd number of them has it.
    Xor,
}
