//! Two checkpoints by their manifests alone.

use crate::exchange::{Topology, World, agree, all_gather, broadcast_bytes, decode, encode};
use crate::fault::Result;
use crate::job::outcome::BadFile;
use crate::job::seen::{missing, sights};
use crate::job::verify::found::{Found, damaged, look, no_manifest, of_manifest};
use crate::store::manifest;
use std::collections::BTreeMap;
use std::path::Path;

/// Element type, shape and digest of each tensor.
type Digests = BTreeMap<String, (String, Vec<u64>, u64)>;

/// Why a sound manifest may tell nothing of tensors: one of files that were converted knows parts alone.
const UNTOLD: &str = "it, or that of the other checkpoint, tells of parts and of no whole tensor, so nothing can be \
                      compared: `diff` compares the weights themselves";

/// What the processes together see of a checkpoint: its tensors, or what is said of a manifest that tells nothing; and
/// what they miss of it.
struct Side {
    digests: std::result::Result<Digests, String>,
    missing: Vec<BadFile>,
}

impl Side {
    /// What is said of `directory`. Collective.
    ///
    /// # Errors
    /// The same on every process, if none of them sees a manifest.
    fn of(world: &World, topology: &Topology, directory: &Path) -> Result<Side> {
        let found = agree(world, look(directory))?;
        let (seen, mine) = match found {
            Found::Nothing => (Ok(None), None),
            Found::Damaged(reason) => (Err(reason), None),
            Found::Manifest(manifest) => (Ok(Some(manifest.clone())), Some(manifest)),
        };
        let seen = seen.as_ref().map(Option::as_deref).map_err(String::as_str);
        let sights = sights(world, directory, seen)?;
        let first = sights.iter().position(Option::is_some);
        let first = agree(world, first.ok_or_else(|| no_manifest(directory)))?;
        let first = u32::try_from(first).unwrap_or_default();
        let own = sights.get(world.process() as usize);
        let head = own.and_then(|own| sights.iter().position(|other| other == own));
        let speaks = head == Some(world.process() as usize);
        let missing = missing(world, topology, mine.as_deref().filter(|_| speaks))?;
        let bytes = match (world.process() == first, seen, mine) {
            (true, Err(reason), _) => {
                let reason = damaged(reason.to_owned()).reason;
                encode(&std::result::Result::<Digests, _>::Err(reason))
            }
            (true, _, Some(manifest)) => {
                let told = (!manifest.tensors.is_empty() || manifest.structures.is_empty())
                    .then_some(manifest.tensors)
                    .ok_or_else(|| UNTOLD.to_owned());
                let digests = told.map(|tensors| {
                    let tensors = tensors.into_iter();
                    let digests = tensors.map(|(name, t)| (name, (t.dtype, t.shape, t.digest.0)));
                    digests.collect::<Digests>()
                });
                encode(&digests)
            }
            _ => Ok(Vec::new()),
        };
        let bytes = broadcast_bytes(world, first, agree(world, bytes)?)?;
        let digests = agree(world, decode(&bytes))?;
        let missing = all_gather(world, &missing)?.into_iter().flatten();
        let missing = missing.map(|bad| BadFile {
            file: directory.join(&bad.file).display().to_string(),
            ..bad
        });
        Ok(Side {
            digests,
            missing: missing.collect(),
        })
    }
}

/// Compares two checkpoints by their manifests alone. Collective.
pub(super) fn compare(
    world: &World,
    topology: &Topology,
    directory: &Path,
    against: &Path,
) -> Result<(u64, Vec<BadFile>)> {
    let ours = Side::of(world, topology, directory)?;
    let theirs = Side::of(world, topology, against)?;
    let mut bad = ours.missing;
    bad.extend(theirs.missing);
    let (ours, theirs) = match (ours.digests, theirs.digests) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(reason), _) | (_, Err(reason)) => return Ok((0, vec![of_manifest(reason)])),
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
    bad.extend(wrong);
    Ok((checked, bad))
}
