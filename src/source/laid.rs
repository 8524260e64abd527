//! The layout that a result keeps in its manifest: files of ranks that it tells of need no strategy.

use crate::exchange::{Topology, World, agree, all_gather_agreed, broadcast_bytes};
use crate::fault::plain::in_stages;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::Spread;
use crate::plan::inventory::Inventory;
use crate::source::choice::chosen;
use crate::source::found::Source;
use crate::source::listed::Listing;
use crate::source::reading::Verify;
use crate::store::manifest::{Manifest, NAME};
use crate::store::rank_dir::rank_in;
use crate::strategy::{Strategy, StrategyFile};
use crate::tensor::digest::checksum;
use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A layout that a manifest keeps.
#[derive(Clone, Debug)]
pub struct Laid {
    /// It, as a strategy; where a given one takes its place, on a process alone that the manifest is of.
    pub strategy: Option<Strategy>,
    /// CRC of what its file would hold.
    pub crc: u64,
}

/// What is known of a source's layout where no strategy is given.
#[derive(Default)]
pub(crate) struct Lies {
    /// What its manifest keeps.
    pub(crate) laid: Option<Laid>,
    /// A file that is read, and that a manifest with a layout doesn't tell of as it is.
    untold: Option<String>,
    /// On a process that leads a node, the manifest.
    pub(crate) manifest: Option<Manifest>,
}

/// What a node's manifest says.
#[derive(Serialize, Deserialize)]
struct Word {
    /// CRC of the layout.
    crc: u64,
    /// The first file that the node sees, and that isn't in it.
    untold: Option<String>,
}

/// The manifest in `directory`. Local. One of a newer version says nothing to us.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::Io`].
pub(crate) fn look(directory: &Path) -> Result<Option<Manifest>> {
    match Manifest::read(directory) {
        Err(fault) if fault.kind == Kind::Unsupported => Ok(None),
        Err(fault) if fault.kind == Kind::Corrupt => Err(fault.hint(
            "what it tells of the files can't be checked: `diff` compares them with another \
             checkpoint; without shardloom.json they are taken as they are",
        )),
        other => other,
    }
}

/// The layout that the manifests of `source` keep, each of its node's files, and which is `given` in its place or not.
/// It counts if each file that is read is told of, in full size. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Corrupt`] for a manifest that is damaged, unless nothing is to be verified,
/// [`Kind::Strategy`] for a layout that is none.
pub(crate) fn lies(
    world: &World,
    topology: &Topology,
    source: &Source,
    verify: Verify,
    given: bool,
) -> Result<Lies> {
    let files = source.catalog.ranks.values().flatten();
    let paths = files.map(|file| file.path.as_str());
    if source.told.is_some() || !paths.clone().all(is_of_rank) || paths.count() == 0 {
        return Ok(Lies::default());
    }
    let mine = match (topology.leads(world.process()), verify) {
        (false, _) => Ok(None),
        (true, Verify::None) => Manifest::read_sound(&source.base),
        (true, _) => look(&source.base),
    };
    let (mut manifest, mut bytes) = (None, None);
    let word = mine.and_then(|mine| {
        manifest = mine;
        let Some(manifest) = &manifest else {
            return Ok(None);
        };
        bytes = manifest.strategy_bytes()?;
        let word = bytes.as_ref();
        Ok(word.map(|bytes| word_of(bytes, manifest, source)))
    });
    let words: Vec<Option<Word>> = all_gather_agreed(world, word)?;
    let (one, untold) = one_word(topology, source, &words);
    let Some((speaker, crc)) = one else {
        return Ok(Lies {
            laid: None,
            untold,
            manifest,
        });
    };
    let mine = bytes.filter(|_| world.process() == speaker);
    let strategy = if given {
        let strategy = mine.map(|bytes| parsed(&source.base, &bytes));
        agree(world, strategy.transpose())?
    } else {
        let bytes = broadcast_bytes(world, speaker, mine.unwrap_or_default())?;
        // The same bytes everywhere: what can't be read here can't be elsewhere.
        Some(parsed(&source.base, &bytes)?)
    };
    Ok(Lies {
        laid: Some(Laid { strategy, crc }),
        untold: None,
        manifest,
    })
}

/// Whether a file's path is one in a rank's directory.
fn is_of_rank(path: &str) -> bool {
    rank_in(path).is_some()
}

/// What this node's manifest says of the files that it sees.
fn word_of(bytes: &[u8], manifest: &Manifest, source: &Source) -> Word {
    Word {
        crc: checksum(bytes),
        untold: manifest.first_untold(source.seen()).map(str::to_owned),
    }
}

/// The process whose layout all nodes have that see some of the files, and its CRC; else a file that one of them
/// isn't told of. Local, the same on every process.
fn one_word(
    topology: &Topology,
    source: &Source,
    words: &[Option<Word>],
) -> (Option<(u32, u64)>, Option<String>) {
    let mut one = None;
    let nodes = topology.nodes.iter().zip(&source.reach.seen);
    for (members, _) in nodes.filter(|(_, seen)| !seen.is_empty()) {
        let leader = members.first().copied().unwrap_or_default();
        match words.get(leader as usize).and_then(Option::as_ref) {
            Some(word) if word.untold.is_some() => return (None, word.untold.clone()),
            Some(word) if one.is_none_or(|(_, crc)| crc == word.crc) => {
                one = one.or(Some((leader, word.crc)));
            }
            _ => return (None, None),
        }
    }
    (one, None)
}

/// What a strategy file would hold that the manifest at `path` with these `bytes` keeps. Local.
///
/// # Errors
/// [`Kind::Strategy`] if it keeps none; as [`Manifest::parse`].
pub(super) fn kept(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let kept = Manifest::parse(bytes).and_then(|manifest| manifest.strategy_bytes());
    let kept = kept.and_then(|kept| {
        let fault = Fault::new(Kind::Strategy, "keeps no layout of files of ranks");
        kept.ok_or_else(|| {
            fault.hint("it is of full weights, or was written by an older version: give a strategy")
        })
    });
    kept.map_err(|fault| fault.file(path.display().to_string()))
}

/// The strategy that the manifest in `base` keeps.
fn parsed(base: &Path, bytes: &[u8]) -> Result<Strategy> {
    // It is in the form that files of such a name have.
    let name = base.join(NAME).display().to_string();
    let file = StrategyFile { name: &name, bytes };
    Strategy::read(&[file])
}

/// What is said where the layout that the manifest in `base` keeps is taken.
pub(super) fn note(strategy: &Strategy, base: &Path) -> String {
    let shape = in_stages(strategy.ranks(), strategy.stages());
    format!("{}: its manifest tells its layout, {shape}", base.display())
}

impl Lies {
    /// `fault` of files of ranks that there is no strategy for, with why their manifest's layout isn't taken.
    pub(super) fn told(&self, fault: Fault) -> Fault {
        match (fault.kind, &self.untold) {
            (Kind::Strategy, Some(untold)) => Fault {
                hint: Some(format!(
                    "{NAME} keeps a layout, but doesn't list {untold} as it is: give --src-strategy"
                )),
                ..fault
            },
            _ => fault,
        }
    }
}

impl Laid {
    /// The first tensor of `inventory`, which a given strategy was read by, that this lays out otherwise, as far as
    /// both know it, and this process knows this.
    pub(crate) fn differs<'a>(&self, inventory: &'a Inventory) -> Option<&'a Arc<str>> {
        let strategy = self.strategy.as_ref()?;
        let per_stage = strategy.ranks_per_stage();
        let mut same: HashSet<[*const Layout; 2]> = HashSet::new();
        let mut is_same = |name: &str, shape: &Shape, spread: &Spread| {
            let stage = spread.first_rank / per_stage;
            let Some(own) = strategy.layout_in(name, stage) else {
                return true;
            };
            let Ok(own) = own.fit_full(&shape.0) else {
                return false;
            };
            let given = &spread.layout;
            if !same.insert([Arc::as_ptr(&own), Arc::as_ptr(given)]) {
                return true;
            }
            own.is_cut_like(given)
        };
        let mut tensors = inventory.tensors.iter();
        let other = tensors.find(|(name, tensor)| {
            let mut spreads = tensor.spreads.iter();
            !spreads.all(|spread| is_same(name, &tensor.shape, spread))
        });
        other.map(|(name, _)| name)
    }
}

/// What one process finds of such a layout for the files of `listing` in `base`; a manifest that is damaged tells
/// nothing here. Local.
///
/// # Errors
/// [`Kind::Io`]; [`Kind::Strategy`] for a layout that is none.
pub(crate) fn laid_by_listing(base: &Path, listing: &Listing) -> Result<Option<Strategy>> {
    let files = || listing.ranks.values().flatten();
    let of_ranks = listing.inner.is_none() && files().all(|file| is_of_rank(&file.path));
    if !of_ranks || files().next().is_none() {
        return Ok(None);
    }
    let Some(manifest) = Manifest::read_sound(base)? else {
        return Ok(None);
    };
    let untold = manifest.first_untold(files().map(|file| (&*file.path, file.size)));
    let bytes = manifest.strategy_bytes()?.filter(|_| untold.is_none());
    bytes.map(|bytes| parsed(base, &bytes)).transpose()
}

/// The same for what a job would read at `path`, and where it is kept. Local.
///
/// # Errors
/// As [`laid_by_listing`]; what can't be read tells nothing.
pub(crate) fn laid_at(path: &Path, suffix: Option<&str>) -> Result<Option<PathBuf>> {
    let Ok(listing) = chosen(path, suffix, None) else {
        return Ok(None);
    };
    let laid = laid_by_listing(path, &listing)?;
    Ok(laid.map(|_| path.join(NAME)))
}
