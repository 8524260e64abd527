//! Formats: one file each, and a line in `table` or `directories`.
//!
//! A format of files is a [`FileFormat`]: how a file of it begins, and how its structure is read and
//! laid out. A format of directories is a [`DirectoryFormat`]: it has files of a format, and tells how
//! they are cut. What is known by sight alone, to say what it is and what to do with it, is a
//! [`Foreign`]. Files are told by their first bytes; an ending only says which files of a directory
//! are looked at.

pub mod checkpoint2;
pub mod ckpt;
mod dcp;
mod deepspeed;
mod directories;
mod directory;
mod foreign;
mod handle;
pub mod laid;
mod megatron;
mod pickle;
mod progress;
mod refuse;
mod row;
pub mod safetensors;
mod seal;
mod table;
mod torch;
mod values;

pub use dcp::Content;
pub use directories::Directory;
pub use directory::{Counted, DirectoryFormat, Glimpse, Names, Own, RankFiles, Text};
pub use handle::{Format, is_strategy};
pub use megatron::RELEASE;
pub use progress::{COUNT_NAMES, Count, Progress, stored};
pub use refuse::{known_by_sight, refuse_directory, refuse_pointer, refuse_start};
pub use row::{Entries, FileFormat, Foreign, START_BYTES, Start};
pub use seal::{Seal, Sealed, crc_of};
pub use values::{PathPart, Values};
