//! Which source it is: what tells it from itself with other contents.

use crate::exchange::{Operation, World, agree, all_reduce, encode};
use crate::fault::Result;
use crate::source::found::Source;
use crate::store::io::Stamp;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for a job: of its source, and of `rest`, which says all else that the result depends on. `keeps` says
/// that the job itself gives the source's files no other names: then what changed them counts, too, and not only what
/// wrote them. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`] if a source file is gone.
pub fn fingerprint(world: &World, source: &Source, rest: &str, keeps: bool) -> Result<u64> {
    let mut own = 0u64;
    let mut stamps = || -> Result<()> {
        for (rank, files) in &source.catalog.ranks {
            if source.reach.owner(*rank) != Some(source.reach.process) {
                continue;
            }
            for file in files {
                let stamp = Stamp::of(&source.base.join(&file.path))?;
                let stamp = stamp.map(|stamp| stamp.lasting(keeps));
                let mut hasher = DefaultHasher::new();
                (rank, &file.path, stamp).hash(&mut hasher);
                own = own.wrapping_add(hasher.finish());
            }
        }
        Ok(())
    };
    let stamped = stamps();
    agree(world, stamped)?;
    let mut sum = [own];
    all_reduce(world, &mut sum, Operation::Sum)?;
    let mut hasher = DefaultHasher::new();
    (sum, rest, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    let schemas = source.catalog.distinct_schemas();
    for (_, schema) in schemas {
        encode(&schema.entries)?.hash(&mut hasher);
        schema.metadata.hash(&mut hasher);
    }
    Ok(hasher.finish())
}
