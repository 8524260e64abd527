//! The strategy of a training job, from its configuration and the model's: what the job itself would
//! write, without a cluster.
//!
//! A family's table says which tensors its training network has and what cuts each;
//! the rules here turn a [`Job`] and that into layouts, as MindSpore 2.10 and MindSpore Transformers
//! 2.0 do. Only `read` opens files.

mod check;
mod conditions;
mod dealt;
mod derived;
mod distributes;
mod feed_forward;
mod job;
mod mesh;
mod network;
mod offset;
mod outlook;
mod placement;
mod read;
mod recognise;
mod seen;
mod shard;
mod sizes;
mod stages;
mod states;
mod threshold;

pub use derived::{Derived, derive, rank_file_name};
pub use job::Job;
pub use mesh::Mesh;
pub use outlook::{layouts, tensors};
pub use read::{Formed, configured, formed, latent, launched, usual};
pub use recognise::{Candidate, Held, recognise};
pub use seen::{JOINED, LATENT, Seen};
pub use sizes::Sizes;
