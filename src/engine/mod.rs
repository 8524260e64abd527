//! Runs jobs: discover, plan, create, move, commit.
//!
//! The control plane (names, layouts, catalogs, plans) and the data plane (byte ranges and strided
//! copies) meet in [`mover`]. The engine prints nothing: it returns an [`outcome::Outcome`].

mod behind;
pub mod compare;
mod compute;
pub mod convert;
pub mod derived;
pub mod discover;
pub mod fill;
mod in_place;
pub mod inspect;
pub mod iteration;
pub mod job;
mod ledger;
mod listing;
pub mod mover;
pub mod outcome;
mod output;
mod parts;
pub mod place;
mod resume;
pub mod rounds;
pub mod scalars;
pub mod sink;
pub mod strategy_files;
mod tally;
pub mod verify;
