//! Formats: one file each, and a line in `table`.
//!
//! A format of files is a [`FileFormat`]: how a file of it begins, and how its structure is read and
//! laid out. What is known by sight alone, to say what it is and what to do with it, is a
//! [`Foreign`]. Files are told by their first bytes; an ending only says which files of a directory
//! are looked at.

pub mod ckpt;
mod foreign;
mod handle;
mod refuse;
mod row;
pub mod safetensors;
mod table;

pub use handle::Format;
pub use refuse::{refuse_directory, refuse_pointer, refuse_start};
pub use row::{Entries, FileFormat, Foreign, START_BYTES, Start};
