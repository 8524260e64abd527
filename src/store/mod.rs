//! Where tensors lie, and how they are committed.
//!
//! A format ([`formats`]) turns bytes into a [`crate::catalog::FileSchema`] (found) or lays one out
//! (designed); all reading and writing of tensor bytes is [`crate::transport`]'s, by the schema's byte ranges.
//! Every system call that touches a file goes through [`io`].
//!
//! *Absent on purpose*: MPI, and who needs what: a store is told what to read and to write; a file
//! opened elsewhere than in [`io`].

pub mod ability;
mod aside;
pub(crate) mod cache;
pub mod commit;
mod file_record;
pub mod formats;
pub mod full_dir;
mod hex;
pub mod hidden;
pub mod io;
pub mod journal;
pub mod json;
pub mod lock;
pub mod manifest;
pub mod mapped;
pub mod names;
pub mod once;
mod own;
pub mod rank_dir;
pub mod replaceable;
pub mod resolved;
pub mod single;
pub mod whole;

pub use formats::{Directory, Format, checkpoint2, ckpt, safetensors};
pub use lock::token;
