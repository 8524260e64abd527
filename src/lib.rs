//! Moves model weights between parallel layouts.
//!
//! Everything is one pipeline with other ends:
//!
//! ```text
//! strategy ──> layout ──> plan ──> exchange ──> store
//! (files)     (regions)  (transfers) (MPI)     (bytes on disk)
//! ```
//!
//! A *layout* says which cell of a tensor a rank holds and who else holds it; a *plan* intersects
//! source cells with destination cells; the *exchange* carries what a process can't reach itself;
//! a *store* is where tensors lie. `docs/architecture.md` tells it on a page.

pub mod catalog;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod destination;
pub mod exchange;
pub mod fault;
pub mod job;
pub mod layout;
pub mod measure;
pub mod model;
pub mod plan;
pub mod report;
pub mod source;
pub mod store;
pub mod strategy;
pub mod tensor;
pub mod transport;
pub mod view;
