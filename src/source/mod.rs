//! The source of a job: what is there, which of it is meant, who sees it, what it says.
//!
//! Nodes that share it list it together, each thing once; each file's header is read by one process; schemas
//! that are equal travel once. What comes out is a [`Source`], the same on every process.
//!
//! *Absent on purpose*: anything that writes, and anything that knows where bytes will go.

pub mod adapter;
mod adapter_parts;
mod agreed;
mod around;
mod aside;
mod beside;
mod choice;
pub(crate) mod complete;
mod contents;
pub mod counts;
pub mod derived;
mod directory;
pub mod expected;
mod files;
pub(crate) mod flat;
mod found;
pub(crate) mod fragment;
mod full;
mod full_index;
mod grouped;
mod headers;
pub mod hyper_parameters;
mod identity;
mod index;
mod laid;
pub mod latest;
mod listed;
mod listing;
pub mod meta;
pub(crate) mod nothing;
mod numbered;
pub(crate) mod older;
mod open;
pub(crate) mod parts_aside;
pub(crate) mod pattern;
mod position;
mod ranks;
mod reading;
pub mod sampled;
pub mod saved;
pub mod scalars;
pub(crate) mod seals;
mod sets;
mod step;
mod still;
pub mod strategy_files;
pub mod survey;
mod tied_pairs;
mod values;
mod views;

pub(crate) use beside::beside;
pub(crate) use choice::LATEST;
pub(crate) use choice::chosen;
pub(crate) use directory::{structure, tells, told};
pub(crate) use files::list_files;
pub(crate) use found::place;
pub use found::{Source, Told};
pub use identity::fingerprint;
pub(crate) use index::index_notes;
pub use laid::Laid;
pub(crate) use laid::{laid_at, laid_by_listing, lies, look};
pub(crate) use listed::{Inner, Listed, Listing};
pub(crate) use listing::{list, may_be_numbered, may_match, unnumbered};
pub use open::{OWN_KEYS, Opened, open};
pub(crate) use position::{Offered, is_told_apart, saved as saved_names};
pub(crate) use ranks::named as named_ranks;
pub use reading::{Reading, Verify, Weights, Which};
pub(crate) use sets::one_set;
pub(crate) use step::{check as check_counts, counts_of};
pub use still::Still;
pub use values::{left, missing, uncompared};
