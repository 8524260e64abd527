//! What one process has to do: a pure function of layouts, catalogs and who sees what.
//!
//! No I/O, no MPI, no clock and no randomness here. A process plans only its own part, written from
//! the receiver's side: what it must send it learns from the receivers' requests, so both sides can
//! never disagree.
//!
//! The unit of work is a [`slab`](work::Slab): the same byte window of all destination cells that
//! share a range of dimension 0. Its cells are packed once, however many replicas are written, and
//! neighbouring cells read the same source rows, which are then read once.
//!
//! *Absent on purpose*: anything that opens a file, sends a message or looks at a clock.

pub mod affix;
pub mod arrange;
mod arranged;
pub mod block;
pub mod build;
pub mod cell;
pub mod copies;
mod deal;
pub mod dequantise;
mod directory;
mod divided;
mod division;
mod files;
pub mod forecast;
pub(crate) mod full;
mod group;
pub mod inventory;
mod kept;
mod listing;
pub mod lora;
mod lora_experts;
pub mod lora_lacks;
pub mod lora_masters;
mod lora_meaning;
pub mod lora_own;
pub mod lora_tied;
mod lora_told;
pub mod machine;
mod made;
pub mod megatron;
pub mod names;
mod nodes;
mod outside;
mod padding;
mod patch;
mod patched;
mod pattern;
mod pieces;
mod private;
mod rank_files;
pub mod ratio;
pub mod reach;
pub(crate) mod select;
pub mod simulate;
mod site;
pub mod sketch;
mod slab;
mod source_tensor;
mod spread;
pub(crate) mod state;
mod strangers;
pub mod survey;
mod tensor_plan;
pub mod turns;
mod unit;
pub(crate) mod unmatched;
pub mod value;
mod walk;
mod window;
pub mod work;

pub use patch::Patch;
pub use patched::of_patches;
pub use source_tensor::SourceTensor;
pub use spread::Spread;
pub use tensor_plan::TensorPlan;
