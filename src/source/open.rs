//! Finds a source: what is there, which files are meant, who sees them.

use crate::catalog::Catalog;
use crate::exchange::{Topology, World, agree, all_gather_agreed};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::reach::{ExchangeMode, Reach};
use crate::source::agreed;
use crate::source::beside::told_beside;
use crate::source::choice::{Wanted, choose_from};
use crate::source::complete;
use crate::source::derived::Derived;
use crate::source::directory;
use crate::source::files::{list_files, number, refuse_gaps};
use crate::source::found::{Source, Told};
use crate::source::headers::read_headers;
use crate::source::index::{Settled, settle};
use crate::source::laid::{Laid, Lies, lies, note};
use crate::source::listed::Listing;
use crate::source::listing::{Begun, begin, full, refuse_choice};
use crate::source::nothing;
use crate::source::older;
use crate::source::pattern;
use crate::source::reading::{Reading, Verify, Which};
use crate::source::seals;
use crate::source::step;
use crate::source::still::Still;
use crate::source::values;
use crate::source::views::Views;
use crate::store::manifest::Manifest;
use crate::store::{Directory, Format};
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Beginning of the keys that tell how tensors were made of others.
pub const OWN_KEYS: &str = "shardloom.";

/// A source that is open: what it holds and says, the same on every process.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its files, and who sees them.
    pub source: Source,
    /// Its strategy: its own, the given one, or what its manifest keeps.
    pub strategy: Option<Strategy>,
    /// The layout that its manifest keeps, where it was asked for.
    pub laid: Option<Laid>,
    /// On a process that leads a node, the manifest that was asked.
    pub manifest: Option<Manifest>,
    /// Its tensors; none where every file is read for itself.
    pub inventory: Inventory,
    /// What its files say beside their tensors.
    pub metadata: BTreeMap<String, String>,
    /// Whether its layers lay in one tensor, as Megatron-Core has them, and have been taken apart.
    pub layered: bool,
}

/// Opens what `reading` says, cut by `strategy`, of which the tensors `needed` must all be there.
/// Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`] if nobody sees weights there,
/// or ranks are missing that no others stand in for, [`Kind::Ambiguous`], [`Kind::Corrupt`],
/// [`Kind::Differs`] if two nodes disagree about a file or ranks about the step, [`Kind::Strategy`] if the strategy doesn't fit.
pub fn open(
    world: &World,
    topology: &Topology,
    reading: &Reading,
    strategy: Option<Strategy>,
    mode: ExchangeMode,
    needed: impl Fn(&str) -> bool,
) -> Result<Opened> {
    let path = &reading.path;
    let (source, lies, strategy, inventory) = match &reading.which {
        Which::Checkpoint(suffix) => {
            let wanted = Wanted::of(world, topology, path, suffix.as_deref())?;
            let affixes = &reading.derived.affixes;
            let needed = |name: &str| needed(&affixes.of(name));
            let wanted = (&wanted, strategy.as_ref().map(Strategy::ranks));
            let mut source = found(world, topology, reading, mode, wanted, needed)?;
            // From here on all know the same: what fails does so on every process alike.
            check_files(world, &source, reading.verify)?;
            let (lies, strategy) = match strategy {
                None => told_by(world, topology, &mut source, reading.verify)?,
                given => (Lies::default(), given),
            };
            let strategy = source.strategy(strategy)?;
            let renamed = strategy.as_ref().filter(|_| !affixes.are_none());
            let renamed = renamed.cloned().map(|strategy| {
                let schemas = source.catalog.distinct_schemas();
                let entries = schemas.flat_map(|(_, schema)| &schema.entries);
                strategy.for_names(entries.map(|entry| &entry.name), |name| affixes.of(name))
            });
            let by_files = renamed.as_ref().or(strategy.as_ref());
            // What tells its own layout names its files, and they are all there.
            if let (Some(strategy), None) = (by_files, &source.told) {
                complete::check(&source.catalog, strategy, needed)
                    .map_err(|fault| source.place(nothing::linked_nowhere(&source.base, fault)))?;
            }
            let inventory = match (by_files, source.in_parts()) {
                (None, true) => Inventory::of_parts(&source.catalog),
                _ => Inventory::new(&source.catalog, by_files),
            };
            let inventory = inventory.map_err(|fault| match strategy {
                None => lies.told(told_beside(source.place(fault), path)),
                Some(_) => source.place(fault),
            });
            (source, lies, strategy, inventory?)
        }
        Which::Every {
            to,
            contains,
            check_crc,
        } => {
            let contains = contains.as_deref();
            let source = every(world, topology, reading, mode, (*to, contains, *check_crc))?;
            let lies = lies(world, topology, &source, reading.verify, false)?;
            (source, lies, None, Inventory::default())
        }
    };
    let schemas = source.catalog.distinct_schemas();
    let metadata = told_alike(schemas.map(|(_, schema)| &schema.metadata))?;
    Ok(Opened {
        source,
        strategy,
        laid: lies.laid,
        manifest: lies.manifest,
        inventory,
        metadata,
        layered: false,
    })
}

/// What the manifest of `source` keeps of its layout, which is said. Collective.
///
/// # Errors
/// As [`lies`].
fn told_by(
    world: &World,
    topology: &Topology,
    source: &mut Source,
    verify: Verify,
) -> Result<(Lies, Option<Strategy>)> {
    const UNKNOWN: &str = "so the layout that it keeps isn't known: give the source's strategy; `verify --repair --from` \
                           takes the manifest from a copy";
    let lies = lies(world, topology, source, verify, false).map_err(|fault| match fault.kind {
        Kind::Corrupt => Fault {
            hint: Some(UNKNOWN.to_owned()),
            ..fault
        },
        _ => fault,
    })?;
    let strategy = lies.laid.as_ref().and_then(|laid| laid.strategy.clone());
    let said = strategy.iter().map(|strategy| note(strategy, &source.base));
    source.notes.extend(said);
    Ok((lies, strategy))
}

/// Checks that there are tensors, that files agree which are of one save, and, if all is to be verified, that they are what the files' own checksums say.
/// Collective.
fn check_files(world: &World, source: &Source, verify: Verify) -> Result<()> {
    refuse_empty(source)?;
    if verify != Verify::None {
        agreed::check(&source.catalog).map_err(|fault| source.place(fault))?;
    }
    match verify {
        Verify::All => agree(world, seals::check(source, false)),
        _ => Ok(()),
    }
}

/// Refuses a checkpoint without any tensor: nothing would be made of it. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file, or the directory of several.
fn refuse_empty(source: &Source) -> Result<()> {
    let mut schemas = source.catalog.distinct_schemas();
    if schemas.any(|(_, schema)| !schema.entries.is_empty()) || !source.values.is_empty() {
        return Ok(());
    }
    let fault = Fault::new(Kind::MissingShard, "has no tensors");
    let fault = fault
        .hint("nothing would be made of it; is it the file, or the directory, that was meant?");
    let mut files = source.catalog.ranks.values().flatten();
    Err(source.place(match (files.next(), files.next()) {
        (Some(one), None) => fault.file(one.path.as_str()),
        _ => fault,
    }))
}

/// All that files' metadata tell. What this program has noted of how tensors lie in them must be the same in
/// all. Local.
///
/// # Errors
/// [`Kind::Differs`] naming a key and what two files say.
fn told_alike<'a>(
    all: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>> {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in all.flatten() {
        match told.get(key) {
            Some(other) if other != value && key.starts_with(OWN_KEYS) => {
                let message =
                    format!("metadata '{key}' is '{other}' in one file and '{value}' in another");
                return Err(Fault::new(Kind::Differs, message)
                    .hint("the files are of two checkpoints: give those of one"));
            }
            _ => told.insert(key.clone(), value.clone()),
        };
    }
    // How parts lay in files of a format is nothing of what is made of them.
    for key in Directory::all().flat_map(|format| format.own_keys()) {
        told.remove(*key);
    }
    Ok(told)
}

impl Opened {
    /// Puts what is computed in the place of what is stored. Collective.
    ///
    /// # Errors
    /// As the adapter's file, and as what is computed.
    pub fn derive(&mut self, world: &World, derived: &Derived) -> Result<()> {
        let beside = derived.join(world, &mut self.source)?;
        let applied = derived.apply(&mut self.inventory, &self.source, beside);
        let notes = agree(world, applied.map_err(|fault| self.source.place(fault)))?;
        self.source.notes.extend(notes);
        Ok(())
    }
}

/// Finds the checkpoint that is wanted; what nobody chose must have all that is `needed` of the steps before it. Collective.
fn found(
    world: &World,
    topology: &Topology,
    reading: &Reading,
    mode: ExchangeMode,
    (wanted, ranks): (&Wanted, Option<u32>),
    needed: impl Fn(&str) -> bool,
) -> Result<Source> {
    let path = &*reading.path;
    let weights = reading.weights.glob();
    let begin = || begin(path, wanted.suffix(), &reading.weights);
    let views = Views::list(world, topology, path, begin, || full(path, weights))?;
    let offering = views.0.iter().map(|view| &view.listing);
    let Some(chosen) = choose_from(offering, path, wanted, ranks)? else {
        return assemble(world, topology, path, mode, &views, true);
    };
    // What was typed is the same on all processes.
    refuse_choice(path, weights)?;
    let look = |files: &BTreeMap<u32, String>| views.look(world, path, files);
    let try_seen = |seen: &Views| assemble(world, topology, path, mode, seen, true);
    let try_files = |files: &BTreeMap<u32, String>| try_seen(&look(files)?);
    let fault = match try_files(&chosen.files) {
        Ok(mut source) => {
            source.notes.extend(chosen.notes());
            let newest = matches!(wanted, Wanted::Newest);
            let older = chosen.older.iter().filter(|_| newest);
            for (suffix, files) in older.take(older::LOOKED_AT) {
                let seen = look(files)?;
                // What is damaged tells nothing.
                if older::may_have_more(&seen, &source.catalog)
                    && let Ok(other) = try_seen(&seen)
                {
                    let names = [&*chosen.suffix, suffix];
                    let checked =
                        older::refuse_lacking(names, [&source.catalog, &other.catalog], &needed);
                    checked.map_err(|fault| source.place(fault))?;
                }
            }
            return Ok(source);
        }
        Err(fault) => fault,
    };
    if !matches!(fault.kind, Kind::Corrupt | Kind::Unsupported) {
        return Err(fault);
    }
    // A save that was cut short: tell which older one all ranks have whole.
    for (suffix, files) in &chosen.older {
        if try_files(files).is_ok() {
            let hint = format!(
                "of {} this file can't be used; the newest that all ranks have whole is {suffix}: \
                 --file-suffix {suffix}",
                chosen.suffix
            );
            return Err(Fault {
                hint: Some(hint),
                ..fault
            });
        }
    }
    Err(fault)
}

/// Finds every file that isn't `to` this format already, of those whose names contain a text. Collective.
fn every(
    world: &World,
    topology: &Topology,
    reading: &Reading,
    mode: ExchangeMode,
    (to, contains, check_crc): (Format, Option<&str>, bool),
) -> Result<Source> {
    let path = &*reading.path;
    let begin = || list_files(path, Some(to), contains).map(Begun::from);
    let full = || Ok(Listing::default());
    let mut views = Views::list(world, topology, path, begin, full)?;
    if contains.is_none() {
        let listings = views.0.iter().map(|view| &view.listing);
        agree(world, refuse_gaps(listings, path))?;
    }
    let listings = views.0.iter_mut().map(|view| &mut view.listing);
    agree(world, number(listings.collect(), path, to))?;
    let source = assemble(world, topology, path, mode, &views, false)?;
    if check_crc || reading.verify == Verify::All {
        agree(world, seals::check(&source, check_crc))?;
    }
    Ok(source)
}

/// Puts what the nodes see together: with `one_step` all files are of one. Collective.
fn assemble(
    world: &World,
    topology: &Topology,
    path: &Path,
    mode: ExchangeMode,
    views: &Views,
    one_step: bool,
) -> Result<Source> {
    let merged = views.merged(topology, path);
    if merged
        .as_ref()
        .is_err_and(|fault| fault.kind == Kind::MissingShard)
    {
        agree(world, nothing::refuse(path))?;
    }
    let merged = merged?;
    let base = merged.single_file.then(|| pattern::base(path));
    let base = base.unwrap_or_else(|| path.to_path_buf());
    let source_ranks = merged.ranks.keys().next_back().map_or(1, |last| last + 1);
    let nodes = topology.nodes.clone();
    let seen = views.seen(nodes.len());
    let reach = Reach::new(world.process(), nodes, seen, source_ranks, mode);
    let reach = reach.with_common(views.common());
    let all: BTreeSet<u32> = merged.ranks.keys().copied().collect();
    if mode == ExchangeMode::Direct
        && let Some(node) = reach.seen.iter().position(|seen| **seen != all)
    {
        let message = format!("node {node} doesn't see all source ranks");
        return Err(Fault::new(Kind::MissingShard, message)
            .file(path.display().to_string())
            .hint(
                "--exchange direct needs shared storage; --exchange auto sends what isn't seen",
            ));
    }
    let told = directory::read(world, &base, &merged)?;
    let mut headers = read_headers(world, &reach, &base, &merged, told.as_ref())?;
    let left = told
        .as_ref()
        .map(|told| directory::keep_counted(&mut headers.catalog, &merged, told));
    let opened = std::mem::take(&mut headers.opened);
    let still = agree(world, Still::watch(&reach, &base, &merged, opened))?;
    let values = values_of(&headers.catalog, told.as_ref());
    let mut notes = merged.notes.clone();
    notes.extend(left.transpose()?.flatten());
    let other_step = |told| directory::other_step(&base, &merged, told);
    notes.extend(told.as_ref().and_then(other_step));
    if let Some(index) = merged.index.as_ref().filter(|_| one_step) {
        notes.extend(by_index(
            world,
            &reach,
            &base.join(index),
            &mut headers.catalog,
        )?);
    }
    if one_step && told.is_none() {
        agree(world, step::check(&base, &headers.counts))?;
    }
    Ok(Source {
        base,
        catalog: headers.catalog,
        reach,
        format: headers.format,
        told,
        still,
        notes,
        values,
        index: merged.index,
        indexed: merged.indexed,
    })
}

/// What the files hold besides tensors, by name; an adapter's own file is of these. Local.
fn values_of(catalog: &Catalog, told: Option<&Told>) -> Vec<String> {
    let mut values = values::names(catalog);
    let adapter = told.and_then(|told| told.own.adapter.as_ref());
    values.extend(adapter.map(|(name, _)| (*name).to_owned()));
    values
}

/// Keeps of tensors that several files have the one that the index says; gives what is to be said.
/// Collective.
fn by_index(
    world: &World,
    reach: &Reach,
    index: &Path,
    catalog: &mut Catalog,
) -> Result<Vec<String>> {
    let files = catalog.ranks.get_mut(&0);
    let files = files.map_or(&mut [][..], |files| &mut files[..]);
    let mine = if reach.owner(0) == Some(reach.process) {
        let named = files.iter().map(|file| {
            let names = file.schema.entries.iter().map(|entry| &*entry.name);
            (file.path.as_str(), names.collect())
        });
        settle(index, named).map(Some)
    } else {
        Ok(None)
    };
    let all: Vec<Option<Settled>> = all_gather_agreed(world, mine)?;
    let settled = all.into_iter().flatten().next().unwrap_or_default();
    for (number, file) in (0u32..).zip(files) {
        let left: BTreeSet<&str> = settled
            .left
            .iter()
            .filter(|(of, _)| *of == number)
            .map(|(_, tensor)| tensor.as_str())
            .collect();
        if !left.is_empty() {
            let fresh = file.schema.without(&left);
            file.schema = Arc::new(agree(world, fresh)?);
        }
    }
    Ok(settled.notes)
}
