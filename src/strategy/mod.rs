//! All layouts of a checkpoint: the strategy file and its value.
//!
//! A [`Strategy`] gives each tensor one layout a pipeline stage that holds it. It is read from one
//! file (merged or not) or from the files of a directory, in protobuf or JSON form. Bytes in, bytes
//! out: nothing here opens a file. The rules are those of MindSpore 2.10; see docs/formats.md.
//!
//! *Absent on purpose*: files, processes and clocks: bytes in, bytes out.

mod axes;
mod beside;
pub mod derive;
mod draw;
pub(crate) mod ends;
mod file;
mod fit;
mod input;
pub mod json;
mod layouts;
pub mod like;
pub mod merge;
pub mod name;
pub mod protobuf;
pub mod rank_file;
pub mod rank_list;
mod read;
pub mod show;
mod stage_layout;
mod write;

pub use file::{Form, StrategyFile};
pub use input::{FullShape, StrategyInput};
pub use layouts::Strategy;
pub use stage_layout::StageLayout;
