//! Files of a destination that are the source's, byte for byte: they get a second name instead of being
//! written.
//!
//! A file is one if a file of the source has the same tensors, each the same cell of the same tensor, and
//! says the same of itself. Where all files of a job are, and the source's manifest tells of them, nothing
//! is read either; else their bytes are read for their digests, as ever.

use crate::catalog::{Catalog, Entry, FileSchema, Held, Place, ShardFile};
use crate::destination::{Destination, Linked};
use crate::exchange::{Operation, World, agree, all_reduce};
use crate::fault::Result;
use crate::fault::memory::zeroed;
use crate::job::origin::Origin;
use crate::job::planned::Planned;
use crate::job::verify::reader::Reader;
use crate::plan::TensorPlan;
use crate::source::Source;
use crate::store::Format;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{FileRecord, Manifest, NAME};
use crate::store::rank_dir::rank_in;
use crate::tensor::digest::residue_of_crc;
use crate::transport::Done;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tensors that a rank has for itself are compared if they are no larger: those of ranks that are renumbered
/// are alike.
const BYTES_COMPARED: u64 = 64 << 10;

/// Finds the files of `planned` that are files of the source, and takes these' structure for them. Collective.
///
/// # Errors
/// The same on every process.
pub(super) fn find(
    world: &World,
    source: &Source,
    destination: &mut Destination,
    planned: &mut Planned,
) -> Result<()> {
    // Those that build a file together must all see what it may be.
    let apart = destination.site.everybody && !source.reach.all_see_all();
    let found = match apart {
        true => Ok(Found::new()),
        false => Finding::new(source, planned).all(),
    };
    let found = agree(world, found)?;
    let resolved = io::resolve(&source.base).ok();
    for (place, (from, schema)) in found {
        let (rank, file) = place;
        if let Some(to) = planned.catalog.restructure(rank, file, schema) {
            let path = &source.catalog.file(from).path;
            let from = real(
                source.base.join(path),
                resolved.as_ref().map(|base| base.join(path)),
            );
            let to = to.to_owned();
            destination.linked.insert(place, Linked { from, to });
        }
    }
    Ok(())
}

/// The file at `path`, which is at `resolved` if only what is above the source has links: else what a link leads
/// to, which gets no second name itself. Local.
fn real(path: PathBuf, resolved: Option<PathBuf>) -> PathBuf {
    match (io::resolve(&path), resolved) {
        (Ok(real), Some(resolved)) if real != resolved => real,
        _ => path,
    }
}

/// What a site's files are, by their rank and number: those of the source.
type Found = BTreeMap<(u32, u32), (Place, Arc<FileSchema>)>;

struct Finding<'a> {
    source: &'a Source,
    /// That of the files to write.
    format: Option<Format>,
    catalog: &'a Catalog,
    plans: HashMap<&'a str, Vec<&'a TensorPlan>>,
    /// Of the pairs of structures that were compared, the source's with its beginning, if they are alike.
    alike: HashMap<[usize; 2], Option<Arc<FileSchema>>>,
}

impl<'a> Finding<'a> {
    fn new(source: &'a Source, planned: &'a Planned) -> Self {
        let mut plans: HashMap<&str, Vec<&TensorPlan>> = HashMap::new();
        for plan in &planned.plans {
            plans.entry(&plan.name).or_default().push(plan);
        }
        Finding {
            source,
            format: planned.format,
            catalog: &planned.catalog,
            plans,
            alike: HashMap::new(),
        }
    }

    /// All of them. Local.
    fn all(mut self) -> Result<Found> {
        let mut found = Found::new();
        let formats = [Some(self.source.format), self.format];
        if formats != [Some(Format::SAFETENSORS); 2] {
            return Ok(found);
        }
        for (rank, files) in &self.catalog.ranks {
            for (number, file) in (0u32..).zip(files) {
                if let Some(same) = self.same(*rank, file)? {
                    found.insert((*rank, number), same);
                }
            }
        }
        Ok(found)
    }

    /// The file of the source that `file` of destination rank `rank` is.
    fn same(&mut self, rank: u32, file: &ShardFile) -> Result<Option<(Place, Arc<FileSchema>)>> {
        let entries = &file.schema.entries;
        let plans: Option<Vec<&TensorPlan>> =
            entries.iter().map(|e| self.plan(rank, &e.name)).collect();
        let Some(plans) = plans else { return Ok(None) };
        // One that most ranks hold says least of where a file may be.
        let few = plans
            .iter()
            .min_by_key(|plan| plan.destination.layout.replicas());
        let Some(few) = few.filter(|_| !entries.is_empty()) else {
            return Ok(None);
        };
        let Some(tensor) = few.only_source() else {
            return Ok(None);
        };
        let catalog = &self.source.catalog;
        let mut ranks: Vec<u32> = tensor.spreads.iter().flat_map(|s| s.ranks()).collect();
        if few.destination.layout.ranks() == 1 {
            ranks = catalog.ranks.keys().copied().collect();
        }
        ranks.retain(|other| self.source.reach.sees(*other));
        ranks.sort_by_key(|other| *other != rank);
        for other in ranks {
            let Some(place) = catalog.find(other, &few.name) else {
                continue;
            };
            if !self.holds_all(rank, other, &plans)? {
                continue;
            }
            let from = catalog.file(place);
            if let Some(schema) = self.alike(from, &file.schema)? {
                return Ok(Some((place, schema)));
            }
        }
        Ok(None)
    }

    /// The plan of tensor `name` of rank `rank`, if it carries bytes over as they are.
    fn plan(&self, rank: u32, name: &str) -> Option<&'a TensorPlan> {
        let plans = self.plans.get(name)?.iter().copied();
        let mut plans = plans.filter(|plan| plan.destination.ranks().contains(&rank));
        let plan = plans.next()?;
        let copied = !plan.is_changed() && plan.zeros_from.is_none();
        (copied && plan.only_source().is_some() && plans.next().is_none()).then_some(plan)
    }

    /// Whether source rank `other` has just the cells that `rank` is to have.
    fn holds_all(&self, rank: u32, other: u32, plans: &[&TensorPlan]) -> Result<bool> {
        for plan in plans {
            let Some(tensor) = plan.only_source() else {
                return Ok(false);
            };
            let to = &plan.destination;
            let region = to.grid.region(&to.layout.cell(rank - to.first_rank));
            let holds = tensor.spreads.iter().any(|from| {
                from.ranks().contains(&other)
                    && from.grid.region(&from.layout.cell(other - from.first_rank)) == region
            });
            if !holds && !self.is_equal(plan, other)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a small tensor that each rank has for itself is the same in the files of rank `other`.
    fn is_equal(&self, plan: &TensorPlan, other: u32) -> Result<bool> {
        let catalog = &self.source.catalog;
        let tensor = plan
            .only_source()
            .filter(|_| plan.destination.layout.ranks() == 1);
        let of = tensor.and_then(|tensor| Some((tensor, tensor.spreads.first()?.first_rank)));
        let small = plan.cell_bytes() <= BYTES_COMPARED;
        let Some((tensor, own)) = of.filter(|_| small) else {
            return Ok(false);
        };
        let places = (
            catalog.find(own, &tensor.name),
            catalog.find(other, &tensor.name),
        );
        let (Some(own), Some(other)) = places else {
            return Ok(false);
        };
        let seen = self.source.reach.sees(own.rank);
        Ok(seen && self.bytes(own)? == self.bytes(other)?)
    }

    fn bytes(&self, place: Place) -> Result<Vec<u8>> {
        let catalog = &self.source.catalog;
        let file = ReadFile::open(&self.source.base.join(&catalog.file(place).path))?;
        let entry = catalog.entry(place);
        // They are few.
        let short = |bytes: u64| usize::try_from(bytes).unwrap_or_default();
        let mut all = zeroed(short(entry.bytes()))?;
        entry.locate(0..entry.bytes(), |at, part| {
            file.read_at(&mut all[short(part.start)..short(part.end)], at)
        })?;
        Ok(all)
    }

    /// The structure of a file of the source, with its beginning, if it has the tensors of `wanted`, nothing
    /// else, and says the same of itself.
    fn alike(
        &mut self,
        from: &ShardFile,
        wanted: &Arc<FileSchema>,
    ) -> Result<Option<Arc<FileSchema>>> {
        let key = [&from.schema, wanted].map(|schema| Arc::as_ptr(schema).addr());
        if let Some(known) = self.alike.get(&key) {
            return Ok(known.clone());
        }
        let found = match same_tensors(&from.schema, wanted) {
            Some(begin) => self.with_beginning(from, begin)?,
            None => None,
        };
        self.alike.insert(key, found.clone());
        Ok(found)
    }

    /// The structure of `from` with the bytes before its tensors, which begin at `begin`.
    fn with_beginning(&self, from: &ShardFile, begin: u64) -> Result<Option<Arc<FileSchema>>> {
        let file = ReadFile::open(&self.source.base.join(&from.path))?;
        let mut bytes = zeroed(usize::try_from(begin).unwrap_or_default())?;
        file.read_at(&mut bytes, 0)?;
        let length = bytes
            .first_chunk::<8>()
            .map(|length| u64::from_le_bytes(*length));
        if length.and_then(|length| length.checked_add(8)) != Some(begin) {
            return Ok(None);
        }
        let schema = &from.schema;
        let (entries, metadata) = (schema.entries.clone(), schema.metadata.clone());
        let schema = FileSchema::new(entries, metadata, vec![(0, bytes)], schema.size)?;
        Ok(Some(Arc::new(schema)))
    }
}

/// Where the tensors of `from` begin, if they are those of `wanted`, one after the other to the end of the
/// file, and both say the same of themselves.
fn same_tensors(from: &FileSchema, wanted: &FileSchema) -> Option<u64> {
    let begin = from.entries.first()?.segments.first()?.start;
    let mut end = begin;
    for entry in &from.entries {
        let [segment] = &entry.segments[..] else {
            return None;
        };
        let other = wanted.get(&entry.name)?;
        let same = (entry.dtype, &entry.shape) == (other.dtype, &other.shape);
        if segment.start != end || !same {
            return None;
        }
        end = segment.end;
    }
    let plain = from.held == Held::default() && wanted.held == Held::default();
    let all = plain && from.entries.len() == wanted.entries.len() && end == from.size;
    (all && from.metadata == wanted.metadata).then_some(begin)
}

/// What would have been entered of files that are all the source's, whose manifest tells of them and which stand
/// as they stood when it was written; none if they aren't, or it doesn't, on any process. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn known(
    world: &World,
    origin: &Origin,
    source: &Source,
    destination: &Destination,
    planned: &Planned,
) -> Result<Option<Done>> {
    let done = all_known(world, origin, source, destination, planned);
    let mut all = [u64::from(done.is_some())];
    all_reduce(world, &mut all, Operation::Min)?;
    Ok(done.filter(|_| all[0] == 1))
}

/// Whether a file stands as it stood when the manifest beside it, or above its rank's directory, was written.
fn stands_untouched(base: &Path, record: &FileRecord) -> bool {
    let own = [Some(base), base.parent()].into_iter().flatten();
    let mut own = own.map(|directory| directory.join(NAME));
    let own = own.find(|path| matches!(io::standing(path), Ok(Standing::File)));
    own.is_some_and(|own| Manifest::stands_untouched(&own, base, record).is_ok_and(|stands| stands))
}

/// The names of the tensors that not all ranks have alike.
fn cut(planned: &Planned) -> HashSet<&str> {
    let cut = planned.plans.iter().filter(|plan| {
        let layout = &plan.destination.layout;
        layout.replicas() < u64::from(layout.ranks())
    });
    cut.map(|plan| &*plan.name).collect()
}

/// Whether a file has the bytes that its manifest tells of, by the smallest of its tensors that are `cut`: a file of
/// the same size may have come in its place. Local.
fn has_its_own(
    file: &Path,
    entries: &[Entry],
    shards: &HashMap<&str, u64>,
    cut: &HashSet<&str>,
) -> bool {
    let own = entries.iter().filter(|entry| cut.contains(&*entry.name));
    let Some(least) = own.min_by_key(|entry| entry.bytes()) else {
        return true;
    };
    let crc = ReadFile::open(file).and_then(|open| Reader::default().crc(&open, least));
    crc.is_ok_and(|crc| shards.get(&*least.name) == Some(&crc))
}

fn all_known(
    world: &World,
    origin: &Origin,
    source: &Source,
    destination: &Destination,
    planned: &Planned,
) -> Option<Done> {
    let files = planned.catalog.ranks.values().map(Vec::len).sum::<usize>();
    let whole = origin.tells() && files == destination.linked.len() && !planned.trailers;
    if !whole {
        return None;
    }
    let mut done = Done::default();
    let heads = destination.head == world.process();
    let mut crcs: HashMap<(u32, &str), u64> = HashMap::new();
    if heads {
        let manifest = origin.own()?;
        let records = manifest.files.iter();
        let records: HashMap<&str, &FileRecord> = records.map(|file| (&*file.path, file)).collect();
        let cut = cut(planned);
        for ((rank, number), linked) in &destination.linked {
            let inside = linked.from.strip_prefix(&source.base).ok()?.to_str()?;
            let record = records.get(inside)?;
            // Under another rank's name what the strategy says of it is proved by its bytes alone.
            let own = rank_in(inside) == Some(*rank);
            if !own || !stands_untouched(&source.base, record) {
                return None;
            }
            let entries = &planned
                .catalog
                .ranks
                .get(rank)?
                .get(*number as usize)?
                .schema
                .entries;
            let placed = manifest.placed(record).iter().zip(&record.shards);
            let shards: HashMap<&str, u64> =
                placed.map(|((name, _), crc)| (&**name, crc.0)).collect();
            if !has_its_own(&linked.from, entries, &shards, &cut) {
                return None;
            }
            for (entry, own) in (0u32..).zip(entries) {
                let residue = residue_of_crc(*shards.get(&*own.name)?, own.bytes());
                let (rank, file) = (*rank, *number);
                let place = Place { rank, file, entry };
                done.shards.extend([(place, 0, residue)]);
                crcs.insert((rank, &own.name), residue);
            }
        }
    }
    for (number, plan) in (0u32..).zip(&planned.plans) {
        let ranks = plan.destination.ranks();
        let residue = if ranks.len() == 1 {
            crcs.get(&(ranks.start, &*plan.name)).copied()
        } else {
            let bytes = plan.destination.grid.full_shape().0.iter().product::<u64>();
            let digest = origin.digest(plan.only_source()?)?;
            let residue = residue_of_crc(digest, bytes * plan.element_bytes);
            Some(residue).filter(|_| world.process() == 0)
        };
        done.tensors
            .extend(residue.map(|residue| (number, residue)));
    }
    Some(done)
}
