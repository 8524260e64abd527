//! How many ranks a job has, by what lies beside its checkpoints: the highest rank directories may be gone.

use crate::exchange::{Topology, World, all_gather_agreed};
use crate::fault::Result;
use crate::source::meta::{NETWORK, TRAINABLE};
use crate::source::strategy_files::strategy_bytes;
use crate::store::io::{self, Standing};
use crate::store::manifest::{self, Manifest};
use crate::store::rank_dir;
use crate::strategy::{Strategy, StrategyFile};
use std::path::{Path, PathBuf};

/// The most ranks that anything in or beside `directory` tells of, and what tells it. Collective.
///
/// Asked are the manifest in it and, of a trainer's `checkpoint`, the strategy and the weights beside it.
/// What can't be read tells nothing.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub fn expected_ranks(
    world: &World,
    topology: &Topology,
    directory: &Path,
) -> Result<Option<(u32, String)>> {
    let mine = if topology.leads(world.process()) {
        told(directory)
    } else {
        Ok(None)
    };
    let all = all_gather_agreed(world, mine)?;
    Ok(all.into_iter().flatten().max_by_key(|(ranks, _)| *ranks))
}

/// What this node sees. Local.
fn told(directory: &Path) -> Result<Option<(u32, String)>> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    if let Some(manifest) = Manifest::read_sound(directory)? {
        found.push((of_manifest(&manifest), directory.join(manifest::NAME)));
    }
    let beside = directory
        .parent()
        .filter(|_| directory.ends_with("checkpoint"));
    if let Some(output) = beside {
        let strategy = output.join("strategy");
        if let Some(ranks) = of_strategy(&strategy) {
            found.push((ranks, strategy));
        }
        for (companion, _) in [NETWORK, TRAINABLE] {
            let path = output.join(companion);
            if io::standing(&path)? == Standing::Directory {
                let names = io::list(&path)?;
                let ranks = names.iter().filter(|(_, directory)| *directory);
                let ranks = ranks.filter_map(|(name, _)| rank_dir::rank_of(name));
                found.push((ranks.max().map_or(0, |rank| rank + 1), path));
            }
        }
    }
    let most = found.into_iter().max_by_key(|(ranks, _)| *ranks);
    Ok(most.map(|(ranks, path)| (ranks, path.display().to_string())))
}

fn of_manifest(manifest: &Manifest) -> u32 {
    // What `convert` divides among sites are files.
    let whole = manifest
        .whole
        .iter()
        .filter(|_| manifest.command != "convert");
    let sites = whole.flat_map(|whole| &whole.sites);
    let sites = sites.flatten().map(|(_, end)| *end);
    let files = manifest
        .files
        .iter()
        .filter_map(|file| rank_dir::rank_in(&file.path)?.checked_add(1));
    sites.chain(files).max().unwrap_or_default()
}

fn of_strategy(path: &Path) -> Option<u32> {
    let files = strategy_bytes(path).ok()??;
    let files: Vec<StrategyFile<'_>> = files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect();
    Strategy::read(&files).ok().map(|strategy| strategy.ranks())
}
