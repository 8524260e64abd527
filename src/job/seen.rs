//! The manifests that nodes see: who sees the same one, and what none of them has.

use crate::exchange::{Topology, World, all_gather, all_gather_agreed};
use crate::fault::Result;
use crate::job::outcome::BadFile;
use crate::store::Format;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{self, Manifest};
use crate::store::whole::{RankRange, Whole, ranges, spelled};
use crate::tensor::digest::residue;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Unlisted files that are named one by one.
const NAMED_MAX: usize = 100;

/// What tells one manifest from another, and from its copy on another disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sight {
    bytes: u64,
    file: u64,
}

impl Sight {
    /// Of the manifest of `directory`. Local.
    pub(super) fn of(directory: &Path, manifest: &Manifest) -> Result<Sight> {
        let path = directory.join(manifest::NAME);
        let file = match io::standing(&path)? {
            Standing::File => ReadFile::open(&path)?.identity(),
            // One that is lent, where its own is gone.
            _ => io::identity(directory)?.unwrap_or_default(),
        };
        Ok(Sight {
            bytes: residue(&manifest.to_bytes()?),
            file,
        })
    }
}

/// What is missing of the result that the manifests speak of, on the first process. `seen` is the
/// manifest of this process, where it is the first of those that see it. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn missing(
    world: &World,
    topology: &Topology,
    seen: Option<&Manifest>,
) -> Result<Vec<BadFile>> {
    let mine = seen.map(|manifest| (manifest.job.0, manifest.whole.clone()));
    let all: Vec<Option<(u64, Option<Whole>)>> = all_gather(world, &mine)?;
    if world.process() != 0 {
        return Ok(Vec::new());
    }
    let host = |process| host(topology, process);
    let bad = |reason: String| BadFile {
        file: manifest::NAME.into(),
        tensor: None,
        reason,
    };
    let mut found = Vec::new();
    let mut sites: BTreeMap<u64, (usize, &Whole, BTreeSet<u32>)> = BTreeMap::new();
    let mut first: Option<(usize, u64)> = None;
    for (process, (job, whole)) in all
        .iter()
        .enumerate()
        .filter_map(|(p, s)| Some((p, s.as_ref()?)))
    {
        let (other, first) = *first.get_or_insert((process, *job));
        if first != *job {
            let (here, there) = (host(process), host(other));
            found.push(bad(format!("is of another job on {here} than on {there}")));
        }
        if let Some(whole) = whole {
            let entry = sites
                .entry(*job)
                .or_insert((process, whole, BTreeSet::new()));
            entry.2.insert(whole.site);
        }
    }
    for (_, whole, present) in sites.values() {
        let absent = whole.sites.iter().zip(0u32..);
        let absent: Vec<&Vec<RankRange>> = absent
            .filter(|(_, site)| !present.contains(site))
            .map(|(ranks, _)| ranks)
            .collect();
        if !absent.is_empty() {
            let ranks = absent.iter().flat_map(|ranks| ranks.iter());
            let mut ranks: Vec<u32> = ranks.flat_map(|(begin, end)| *begin..*end).collect();
            ranks.sort_unstable();
            found.push(bad(format!(
                "the result lies in {} directories on nodes' own disks, and no process sees {} of \
                 them: ranks {} are missing",
                whole.sites.len(),
                absent.len(),
                spelled(&ranges(ranks))
            )));
        }
    }
    Ok(found)
}

/// Endings of files that may be weights, too.
const OTHER_WEIGHTS: [&str; 5] = [".bin", ".pt", ".pth", ".distcp", ".npz"];

/// The files of weights in `directory` that its manifest doesn't know. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(super) fn unlisted(directory: &Path, manifest: &Manifest) -> Result<Vec<BadFile>> {
    let weights = |path: &str| {
        Format::of(path).is_some() || OTHER_WEIGHTS.iter().any(|ending| path.ends_with(ending))
    };
    let strange = manifest.others(directory, weights)?.into_iter();
    let bad = |file: String| BadFile {
        file,
        tensor: None,
        reason: "is not in the manifest: it was not written with the others".into(),
    };
    let mut found: Vec<BadFile> = strange.map(bad).collect();
    if found.len() > NAMED_MAX {
        let more = found.split_off(NAMED_MAX).len();
        found.push(bad(format!("… {more} more files")));
    }
    Ok(found)
}

/// Says on which node something is bad, where nodes have directories of their own. Local.
pub(super) fn name_host(
    topology: &Topology,
    process: u32,
    seen: &[Option<std::result::Result<Sight, String>>],
    bad: &mut [BadFile],
) {
    let mut others = seen.iter().flatten();
    let first = others.next();
    if others.all(|other| Some(other) == first) {
        return;
    }
    for entry in bad {
        let host = host(topology, process as usize);
        entry.reason.push_str(&format!(" (on {host})"));
    }
}

fn host(topology: &Topology, process: usize) -> &str {
    let node = topology.node_of.get(process).map(|node| *node as usize);
    let name = node.and_then(|node| topology.hostnames.get(node));
    name.map_or("?", String::as_str)
}

/// What every process sees. Collective.
///
/// # Errors
/// As [`Sight::of`], on every process.
pub(super) fn sights(
    world: &World,
    directory: &Path,
    found: std::result::Result<Option<&Manifest>, &str>,
) -> Result<Vec<Option<std::result::Result<Sight, String>>>> {
    let mine = match found {
        Ok(None) => Ok(None),
        Ok(Some(manifest)) => Sight::of(directory, manifest).map(|sight| Some(Ok(sight))),
        Err(reason) => Ok(Some(Err(reason.to_owned()))),
    };
    all_gather_agreed(world, mine)
}
