//! Runs jobs: discover, plan, create, move, commit.
//!
//! The control plane (names, layouts, catalogs, plans) and the data plane (byte ranges and strided
//! copies) meet in [`rounds`]. The engine prints nothing: it returns an [`outcome::Outcome`].

pub mod compare;
pub mod convert;
pub mod discover;
pub mod fill;
pub mod job;
pub mod outcome;
pub mod place;
pub mod rounds;
pub mod sink;
mod tally;
