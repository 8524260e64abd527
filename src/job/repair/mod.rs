//! verify --repair: damaged files are made anew from equal copies of their parts.
//!
//! Equal are shards of the same name, length and CRC; the manifest knows them all, so no strategy is
//! needed. Every file is made beside its place, proved by its CRC, and renamed when all others stand,
//! too: a damaged file may be where the parts of another one lie.
//!
//! *Absent on purpose*: anything that writes into a good file, or into the other checkpoint.

mod copies;
mod cuts;
mod design;
mod frame;
mod given;
mod lent;
mod mending;
mod parts;
mod relayout;
mod remade;
mod remains;
mod survey;

use crate::destination::hold;
use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::{BadFile, Outcome, Repaired};
use crate::job::tally;
use crate::job::verify::checked::Checked;
use crate::job::verify::find_bad;
use crate::job::verify::found::{Found, look};
use crate::job::verify::reader::Reader;
use crate::store::Format;
use crate::store::io::{self, Standing};
use crate::store::manifest::Manifest;
use crate::transport::Observer;
use copies::{Copies, Donor, Place};
use cuts::Cuts;
use given::{STALE, given, is_tree};
use mending::{Mended, Mender};
use parts::Key;
use relayout::{Missing, beside, kept, relayout};
use remains::{advice, lacks_copy, not_repaired, remaining};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use survey::{Holding, Survey, needed};

pub use given::Repair;
pub use relayout::Origin;

/// Why a replaced file is kept that others are still to be mended of.
const HOLDS: &str = "it holds parts of one that can't be mended yet";

/// What became of the damaged files that are this process's, by number.
type Results = BTreeMap<usize, Mended>;

/// Verifies a directory and mends what is damaged; `observer` hears how many bytes are read to find it, of how
/// many. Collective.
///
/// # Errors
/// The same on every process, if there is no manifest or the other checkpoint can't be read as said.
/// What can't be mended is no error: it is told.
pub fn repair(world: &World, repair: &Repair, observer: &mut Observer<'_>) -> Result<Outcome> {
    let start = std::time::Instant::now();
    let topology = Topology::discover(world)?;
    let directory = agree(world, io::resolve(&repair.directory))?;
    agree(world, check_origin(&directory, repair))?;
    let held = hold(world, &topology, &directory, "verify --repair")?;
    let tree = is_tree(world, &directory)?;
    let given = given(world, repair, &directory, tree, observer)?;
    let mut checked = given.checked;
    let work = Work {
        world,
        directory: &directory,
        repair,
        tree,
        keeps: given.keeps,
    };
    let (mut rows, bad, read) = work.mend(&checked)?;
    let fresh = given.fresh.filter(|_| checked.speaks());
    let placed = fresh.map(|fresh| fresh.place(&directory));
    rows.extend(agree(world, placed.transpose())?);
    drop(held);
    checked.read += read;
    let told = checked.told(world, &topology, bad)?;
    let mut repaired: Vec<Repaired> = all_gather(world, &rows)?.into_iter().flatten().collect();
    repaired.sort();
    let mut outcome = tally::outcome(world, &topology, "verify");
    outcome.bytes.read = told.read;
    outcome.ok = told.bad.is_empty();
    if lacks_copy(&told.bad) {
        let (origin, known) = (repair.origin.as_ref(), repair.strategy.is_some());
        outcome.notes.extend(advice(origin, known));
    }
    outcome.checked = Some(told.checked);
    outcome.bad = Some(told.bad);
    outcome.repaired = Some(repaired);
    outcome.subset = repair.subset.map(|subset| subset.to_string());
    outcome.seconds.total = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// The other checkpoint is another one. Local.
fn check_origin(directory: &Path, repair: &Repair) -> Result<()> {
    let Some(origin) = &repair.origin else {
        return Ok(());
    };
    if io::resolve(&origin.path).is_ok_and(|path| path == directory) {
        return Err(Fault::new(Kind::Usage, "is the directory to repair itself")
            .file(origin.path.display().to_string())
            .hint("copies inside it are found without --from"));
    }
    Ok(())
}

/// What of a file has no good copy.
fn lacks(mended: &Mended) -> &[Option<String>] {
    match mended {
        Mended::Without(missing) => missing,
        _ => &[],
    }
}

/// What is known of the damaged files before another layout is asked.
struct Base<'b> {
    manifest: &'b Manifest,
    suspects: &'b [usize],
    needed: &'b HashSet<Key<'b>>,
    held: &'b [Holding],
    other: Option<&'b Manifest>,
    /// What the directory tells of its files' parts by itself.
    cuts: &'b Cuts,
}

impl<'b> Base<'b> {
    /// All that copies can be taken from.
    fn copies(&self, donors: Vec<Donor<'b>>) -> Copies<'b> {
        let mut copies = Copies::find(donors, self.suspects, self.needed, self.held);
        copies.told = Some(self.cuts);
        copies
    }
}

struct Work<'w> {
    world: &'w World,
    directory: &'w Path,
    repair: &'w Repair,
    /// Whether the directory has directories of ranks.
    tree: bool,
    /// Why what is replaced is kept, if it is.
    keeps: Option<&'static str>,
}

impl Work<'_> {
    /// Mends this process's part of the damaged files: what was made anew, what remains bad, and bytes
    /// read. Collective.
    fn mend(&self, checked: &Checked) -> Result<(Vec<Repaired>, Vec<BadFile>, u64)> {
        let world = self.world;
        let (manifest, suspects) = (&checked.manifest, checked.suspects.as_slice());
        let needed = needed(manifest, suspects);
        let survey = Survey {
            directory: self.directory,
            manifest,
            suspects,
            needed: &needed,
        };
        let (held, mut read) = survey_all(&survey, &checked.own());
        let held = all_gather(world, &(checked.head, held))?;
        let held = held.into_iter().filter(|(head, _)| *head == checked.head);
        let held: Vec<Holding> = held.flat_map(|(_, held)| held).collect();
        let other = agree(world, self.other(manifest, suspects))?;
        let mut results = Results::new();
        let cuts = match suspects {
            [] => Cuts::default(),
            _ => Cuts::of(self.directory),
        };
        let base = Base {
            manifest,
            suspects,
            needed: &needed,
            held: &held,
            other: other.as_ref(),
            cuts: &cuts,
        };
        let copies = base.copies(self.donors(manifest, other.as_ref()));
        read += mend_all(&copies, checked.own(), &mut results);
        let hidden = beside(self.directory);
        let brought = self.bring(&base, &hidden, &mut results);
        let (brought, bytes) = brought.inspect_err(|_| discard(&results))?;
        read += bytes;
        // Nothing takes its place before all stand: what is replaced may be another's copy.
        let keep = self.last_copies(&copies, manifest, &results)?;
        let (rows, bad) = self.place(&copies, manifest, results, &keep);
        if brought {
            all_gather(world, &())?;
            let removed = io::remove_directory(&hidden);
            agree(world, removed)?;
        }
        Ok((rows, bad, read))
    }

    /// What the other checkpoint holds by its manifest; by that of the damaged directory if it has
    /// none. Local.
    fn other(&self, manifest: &Manifest, suspects: &[usize]) -> Result<Option<Manifest>> {
        let Some(origin) = &self.repair.origin else {
            return Ok(None);
        };
        match io::standing(&origin.path)? {
            Standing::Directory => {}
            Standing::File => return Ok(None),
            Standing::Nothing | Standing::EmptyDirectory => {
                let fault = Fault::new(Kind::Io, "has no checkpoint to take copies from");
                return Err(fault.file(origin.path.display().to_string()));
            }
        }
        if let Found::Manifest(found) = look(&origin.path)? {
            return Ok(Some(*found));
        }
        let files = suspects.iter().filter_map(|n| manifest.files.get(*n));
        Ok(Some(Manifest {
            files: files.cloned().collect(),
            structures: manifest.structures.clone(),
            ..Manifest::default()
        }))
    }

    fn donors<'m>(&'m self, manifest: &'m Manifest, other: Option<&'m Manifest>) -> Vec<Donor<'m>> {
        let mut donors = vec![Donor {
            directory: self.directory,
            manifest,
            shown: String::new(),
            lasts: true,
        }];
        if let (Some(manifest), Some(origin)) = (other, &self.repair.origin) {
            donors.push(Donor {
                directory: &origin.path,
                manifest,
                shown: format!("{}/", origin.path.display()),
                lasts: true,
            });
        }
        donors
    }

    /// Brings what is still missing from another layout, if there is one, and mends by it; gives
    /// whether it did, and the bytes read. Collective.
    fn bring(&self, base: &Base<'_>, hidden: &Path, results: &mut Results) -> Result<(bool, u64)> {
        let Some(origin) = &self.repair.origin else {
            return Ok((false, 0));
        };
        // What tells its own parts is cut from full weights.
        let cut = all_gather(self.world, &!base.cuts.is_empty())?.contains(&true);
        let given = self.repair.strategy.as_ref().filter(|_| !cut);
        let told = given.is_some() || origin.strategy.is_some();
        let kept = kept(self.world, self.directory, base.manifest)?;
        let strategy = given.or(kept.as_ref()).filter(|_| !cut);
        if self.tree && !told && strategy.is_none() && !cut {
            return Ok((false, 0));
        }
        let weights = base.manifest.files.iter();
        let mut weights = weights.filter(|file| file.structure.is_some());
        let format = weights.next().and_then(|file| Format::of(&file.path));
        let (mut brought, mut read) = (false, 0);
        // Once for tensors; again, with all of them, for headers that are known nowhere else.
        for again in [false, true] {
            let missing: Missing = results.values().flat_map(lacks).cloned().collect();
            let missing = all_gather(self.world, &missing)?;
            let missing: Missing = missing.into_iter().flatten().collect();
            if missing.is_empty() || (again && !missing.contains(&None)) {
                break;
            }
            let made = relayout(
                self.world,
                origin,
                strategy,
                hidden,
                (base.manifest, format),
                &missing,
            );
            match made {
                // Nobody has said that it is another layout.
                Err(fault) if !told => {
                    tracing::warn!("{fault}");
                    break;
                }
                made => made?,
            }
            brought = true;
            let found = agree(self.world, look(hidden))?;
            if let Found::Manifest(made) = found {
                let cut = base.cuts.within(hidden, base.manifest, base.suspects);
                let cut = cut.ok().filter(|_| !base.cuts.is_empty());
                let donor = |manifest| Donor {
                    directory: hidden,
                    manifest,
                    shown: format!("{}, resharded", origin.path.display()),
                    lasts: false,
                };
                let mut donors = self.donors(base.manifest, base.other);
                donors.push(donor(&*made));
                donors.extend(cut.as_ref().map(donor));
                let copies = base.copies(donors);
                let left = results
                    .iter()
                    .filter(|(_, mended)| !lacks(mended).is_empty());
                let left = left.map(|(number, _)| *number).collect();
                read += mend_all(&copies, left, results);
            }
        }
        Ok((brought, read))
    }

    /// The files to be replaced that alone hold parts of files that can't be mended, by number. Collective.
    fn last_copies(
        &self,
        copies: &Copies<'_>,
        manifest: &Manifest,
        results: &Results,
    ) -> Result<HashSet<usize>> {
        let own = results
            .iter()
            .filter(|(_, m)| matches!(m, Mended::Ready(_)));
        let own: Vec<usize> = own.map(|(number, _)| *number).collect();
        let replaced: HashSet<usize> = all_gather(self.world, &own)?
            .into_iter()
            .flatten()
            .collect();
        let made = replaced
            .iter()
            .filter_map(|number| manifest.files.get(*number));
        let after: HashSet<Key<'_>> = made
            .flat_map(|record| parts::parts(manifest, record))
            .map(|part| part.key())
            .collect();
        let mut keep = Vec::new();
        for (number, mended) in results {
            let Some(record) = manifest.files.get(*number) else {
                continue;
            };
            if !matches!(mended, Mended::Without(_) | Mended::Failed(_)) {
                continue;
            }
            for part in parts::parts(manifest, record) {
                let places = copies.of(*number, &part);
                let goes = |place: &Place| place.donor == 0 && replaced.contains(&place.file);
                if !after.contains(&part.key()) && places.iter().all(goes) {
                    keep.extend(places.first().map(|place| place.file));
                }
            }
        }
        Ok(all_gather(self.world, &keep)?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Puts what was made in its place; tells of it, and of what remains bad. Local.
    fn place(
        &self,
        copies: &Copies<'_>,
        manifest: &Manifest,
        results: Results,
        keep: &HashSet<usize>,
    ) -> (Vec<Repaired>, Vec<BadFile>) {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        for (number, mended) in results {
            let Some(record) = manifest.files.get(number) else {
                continue;
            };
            let remains = |missing: &[Option<String>], why: &str| {
                let found = find_bad(self.directory, manifest, record);
                remaining(&record.path, found, missing, why)
            };
            match mended {
                Mended::Good => {}
                Mended::Ready(ready) => {
                    let parts = keep.contains(&number);
                    let why = parts.then_some(HOLDS).or(self.keeps);
                    let why = why.or(ready.newer.then_some(STALE));
                    match ready.place(&copies.path(0, number), why.is_some()) {
                        Ok(kept) => {
                            if let (Some(kept), Some(why)) = (kept, why) {
                                let kept = kept.display();
                                tracing::warn!("{kept}: the file that was replaced is kept: {why}");
                            }
                            rows.extend(ready.rows);
                        }
                        Err(fault) => {
                            ready.discard();
                            bad.extend(remains(&[], &not_repaired(&fault.message)));
                        }
                    }
                }
                Mended::Without(missing) => {
                    let why = "it stays as it is for want of a good copy of the file's other parts";
                    bad.extend(remains(&missing, why));
                }
                Mended::Failed(message) => bad.extend(remains(&[], &not_repaired(&message))),
            }
        }
        (rows, bad)
    }
}

/// Looks what some damaged files hold. Local.
fn survey_all(survey: &Survey<'_>, own: &[usize]) -> (Vec<Holding>, u64) {
    let mut reader = Reader::default();
    let mut read = 0;
    let mut held = Vec::new();
    for number in own {
        let (found, bytes) = survey.of(*number, &mut reader);
        held.extend(found);
        read += bytes;
    }
    (held, read)
}

/// Mends some files, beside their places; gives how many bytes were read. Local.
fn mend_all(copies: &Copies<'_>, numbers: Vec<usize>, results: &mut Results) -> u64 {
    let mut mender = Mender::new(copies);
    for number in numbers {
        results.insert(number, mender.mend(number));
    }
    mender.read
}

/// Removes what was made, when it can't be put in place. Local.
fn discard(results: &Results) {
    for mended in results.values() {
        if let Mended::Ready(ready) = mended {
            ready.discard();
        }
    }
}
