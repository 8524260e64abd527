//! Two checkpoints by their manifests alone.

use crate::exchange::{Topology, World, agree, all_gather, decode, encode};
use crate::fault::Result;
use crate::job::outcome::BadFile;
use crate::job::verify::found::{Found, damaged, look, no_manifest};
use crate::store::manifest;
use std::collections::BTreeMap;
use std::path::Path;

/// Compares two checkpoints by their manifests alone. Collective.
pub(super) fn compare(
    world: &World,
    topology: &Topology,
    directory: &Path,
    against: &Path,
) -> Result<(u64, Vec<BadFile>)> {
    type Digests = BTreeMap<String, (String, Vec<u64>, u64)>;
    let digests = |directory: &Path| -> Result<Option<std::result::Result<Digests, String>>> {
        let leads = topology.leads(world.process());
        let found = if leads {
            look(directory)
        } else {
            Ok(Found::Nothing)
        };
        type Seen = Option<std::result::Result<Digests, String>>;
        let mine: Result<Seen> = found.map(|found| match found {
            Found::Nothing => None,
            Found::Damaged(reason) => Some(Err(reason)),
            Found::Manifest(manifest) => {
                let tensors = manifest.tensors.into_iter();
                let digests = tensors.map(|(name, t)| (name, (t.dtype, t.shape, t.digest.0)));
                Some(Ok(digests.collect()))
            }
        });
        let mine = agree(world, mine)?;
        let sees = all_gather(world, &mine.is_some())?;
        let first = sees.iter().position(|sees| *sees);
        let first = agree(world, first.ok_or_else(|| no_manifest(directory)))?;
        let first = u32::try_from(first).unwrap_or_default();
        let bytes = if world.process() == first {
            encode(&mine)
        } else {
            Ok(Vec::new())
        };
        let bytes = crate::exchange::broadcast_bytes(world, first, agree(world, bytes)?)?;
        agree(world, decode(&bytes))
    };
    let (ours, theirs) = (digests(directory)?, digests(against)?);
    let (ours, theirs) = match (ours, theirs) {
        (Some(Ok(ours)), Some(Ok(theirs))) => (ours, theirs),
        (Some(Err(reason)), _) | (_, Some(Err(reason))) => return Ok((0, vec![damaged(reason)])),
        _ => return Err(no_manifest(directory)),
    };
    let other = against.display();
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let checked = names.len() as u64;
    let wrong = names.into_iter().filter_map(|name| {
        let reason = match (ours.get(name), theirs.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => return None,
            (Some(_), None) => format!("is not in {other}"),
            (None, _) => format!("is only in {other}"),
            (Some(ours), Some(theirs)) if ours.0 != theirs.0 => {
                format!("is {} here and {} in {other}", ours.0, theirs.0)
            }
            (Some(ours), Some(theirs)) if ours.1 != theirs.1 => {
                format!("has shape {:?} here and {:?} in {other}", ours.1, theirs.1)
            }
            _ => format!("has other bytes than in {other}"),
        };
        Some(BadFile {
            file: manifest::NAME.into(),
            tensor: Some(name.clone()),
            reason,
        })
    });
    Ok((checked, wrong.collect()))
}
