//! Checkpoint 2.0: one directory an iteration, all ranks' files side by side, and a `metadata.json` that
//! tells the layout (docs/formats.md).

mod arrange;
mod counts;
mod format;
mod layout;
mod names;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use crate::store::formats::directory::TRACKER;
pub use format::Checkpoint2;
pub use layout::{fold, ordinal_of};
pub use names::{COMMON, METADATA, METADATA_BYTES_MAX, directory, is_or_holds_one, iteration};
pub use read::{Metadata, parse};
pub use write::{Described, metadata};
