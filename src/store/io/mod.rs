//! Every open, read, write, rename and sync of the program.
//!
//! Each call names its file in the error, and passes a gate (`gate.rs`) at which tests can fail it.

mod append_file;
mod claim;
mod directory;
mod gate;
mod late;
mod likeness;
mod limits;
mod machine;
mod modes;
mod named;
mod read_file;
mod room;
mod stamp;
mod standing;
mod terminal;
pub(super) mod trace;
mod write_file;

pub use append_file::AppendFile;
pub use claim::claim;
pub use directory::{
    Directory, exchange, link, link_softly, make_directory, make_directory_for_good, remove,
    remove_directory, rename, share, sync_directory,
};
pub use likeness::{Likeness, identity, likeness};
pub use limits::{OPEN_FILES, check_open_files, kept_open, limits, raise_open_files};
pub use machine::{
    boot, file_system, free_bytes, free_files, host_name, is_own_disk, is_root, memory_bytes,
    peak_memory_bytes, read_text,
};
pub use modes::{is_mount, may_change, mode, restrict, take_after};
pub use read_file::ReadFile;
pub use room::room;
pub use stamp::Stamp;
pub use standing::{
    Standing, glance, link_target, list, list_beginning, list_files, number, resolve, size, stamp,
    standing,
};
pub use terminal::terminal_columns;
pub use write_file::{WriteFile, write_small, write_small_without};
