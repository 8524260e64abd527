//! The destination of a job: where it is, who shares it, what stands there, and how the new takes
//! its place.
//!
//! *Absent on purpose*: anything that knows how the source is found. What of the source must be
//! known to replace it (its catalog, who sees it) is handed in.

pub(crate) mod allowed;
mod commit;
mod common_name;
mod digests;
mod guard;
mod in_place;
mod openness;
mod place;
mod probe;
mod resume;
mod rooms;
mod sites;
mod stage;
mod writing;

pub(crate) use commit::{Commit, Shown};
pub(crate) use common_name::common_name;
pub use guard::{Guard, Held, hold};
pub(crate) use in_place::{
    Carried, Replaced, carry, files as in_place_files, finished, refuse_file,
};
pub(crate) use openness::denied;
pub use place::{Destination, Linked, Placement};
pub(crate) use probe::{sharing, standing_directory};
pub(crate) use resume::Wanted;
pub(crate) use stage::Staged;
pub use writing::Writing;
