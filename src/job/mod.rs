//! Jobs: open the source, open the destination, plan, move, commit.
//!
//! Every job is the function `run`, with other ends. A dry run is that function stopped after the
//! third step. Nothing is printed: what happened is an [`Outcome`].
//!
//! *Absent on purpose*: a second loop that moves bytes; whatever needs one is a [`Goal`]. A repair only
//! puts back bytes whose CRC the manifest has.

mod above;
pub mod account;
mod adapter;
mod alike;
mod as_source;
mod cells;
mod clock;
mod compare;
mod composed;
mod convert;
mod copies;
mod differing;
mod fill;
mod fits;
mod fused;
mod inputs;
pub mod inspect;
pub mod inspected;
mod laid;
mod linked;
mod linked_bytes;
mod listed;
mod lying;
mod megatron;
pub mod metadata;
mod nodes;
mod origin;
pub mod outcome;
pub mod overview;
mod pairs;
mod pieces;
mod planned;
mod ready;
pub mod repair;
mod request;
mod rest;
mod route;
mod run;
mod same;
mod sealed;
mod seen;
mod sides;
mod spec;
mod steps;
pub(crate) mod tally;
mod unlike;
mod unsaved;
mod values;
pub mod verify;
mod written;

pub use fill::shards;
pub use outcome::Outcome;
pub use ready::{Foretold, Told};
pub use run::{fill, run, run_told};
pub use spec::{Comparing, Convert, Goal, Job, ViewMaker, Viewed, Write};
