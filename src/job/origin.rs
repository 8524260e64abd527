//! What the source's own manifests say of it, and whether what was read is that.
//!
//! The digests of all tensors are made on the way to the destination. Where the source was written
//! with a manifest, they must be those that it has: else bytes that were damaged since would get
//! fresh checksums.

use crate::destination::Shown;
use crate::exchange::{
    Topology, World, all_gather, all_gather_agreed, broadcast_bytes, decode, encode,
};
use crate::fault::{Fault, Kind, Result};
use crate::job::above::look_above;
use crate::job::listed::{CHANGED, Word, word};
use crate::job::outcome::BadFile;
use crate::job::pieces::Proving;
use crate::job::verify::bad_shards;
use crate::plan::SourceTensor;
use crate::plan::TensorPlan;
use crate::plan::value::Step;
use crate::source::{Opened, Source};
use crate::store::manifest::{self, FileRecord, Hex, Manifest, TensorRecord};
use crate::tensor::digest::checksum;
use crate::transport::{Sums, Traced};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What the manifests say, as far as they tell of the files that are read.
#[derive(Default)]
pub(super) struct Origin {
    /// On the process that leads a node, the manifest that the node sees.
    own: Option<Manifest>,
    /// The tensors: the same on every process.
    tensors: BTreeMap<String, TensorRecord>,
    /// Tensors of files that no manifest tells of.
    untold: BTreeSet<Arc<str>>,
}

impl Origin {
    /// Reads them. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Corrupt`] for a manifest that is damaged,
    /// [`Kind::Differs`] if those of two nodes are of different checkpoints.
    pub(super) fn read(world: &World, topology: &Topology, opened: &mut Opened) -> Result<Origin> {
        let source = &opened.source;
        let own = match (opened.manifest.take(), topology.leads(world.process())) {
            (None, true) => look_above(&source.base),
            (known, _) => Ok(known),
        };
        let (mut known, mut tensors) = (None, Vec::new());
        let word = own.and_then(|own| {
            known = own;
            let Some(manifest) = &known else {
                return Ok(None);
            };
            tensors = encode(&manifest.tensors)?;
            Ok(Some(word(manifest, checksum(&tensors), source)?))
        });
        let words: Vec<Option<Word>> = all_gather_agreed(world, word)?;
        let own = known;
        let told = words.iter().zip(0u32..);
        let told: Vec<(&Word, u32)> = told
            .filter_map(|(word, process)| Some((word.as_ref()?, process)))
            .collect();
        let Some((first, speaker)) = told.first() else {
            return Ok(Origin::default());
        };
        if told.iter().any(|(word, _)| word.tensors != first.tensors) {
            let message = "two nodes have manifests of different checkpoints";
            return Err(Fault::new(Kind::Differs, message)
                .file(source.base.join(manifest::NAME).display().to_string())
                .hint("are the ranks of one node left from another run?"));
        }
        // The same bytes everywhere: what can't be read here can't be elsewhere.
        let tensors = decode(&broadcast_bytes(world, *speaker, tensors)?)?;
        let untold = untold(source, topology, &words);
        Ok(Origin {
            own,
            tensors,
            untold,
        })
    }

    /// Whether anything is said of the source. The same on every process.
    pub(super) fn tells(&self) -> bool {
        !self.tensors.is_empty()
    }

    /// What is said of tensor `name` of the source.
    pub(super) fn of(&self, name: &str) -> Option<&TensorRecord> {
        self.tensors
            .get(name)
            .filter(|_| !self.untold.contains(name))
    }

    /// The digest of `tensor` of the source, if what is said is of its type and shape.
    pub(super) fn digest(&self, tensor: &SourceTensor) -> Option<u64> {
        let record = self.of(&tensor.name)?;
        let kind = (tensor.dtype.safetensors_name(), &tensor.shape.0);
        ((&*record.dtype, &record.shape) == kind).then_some(record.digest.0)
    }

    /// The manifest of this process's node, if it leads it.
    pub(super) fn own(&self) -> Option<&Manifest> {
        self.own.as_ref()
    }

    /// Whether one manifest that every node sees tells of all files. The same on every process.
    pub(super) fn tells_all(&self, source: &Source) -> bool {
        !self.tensors.is_empty() && self.untold.is_empty() && source.reach.all_see_all()
    }

    /// Whether the source's tensors have the shapes that they were written in, as its strategy makes them of
    /// their shards, if it has one. Local: the same on every process.
    ///
    /// # Errors
    /// [`Kind::Strategy`] naming the first that hasn't.
    pub(super) fn check_shapes(&self, opened: &Opened) -> Result<()> {
        let source = &opened.source;
        let mut wrong = self
            .recorded(opened)
            .filter(|(_, tensor, record)| tensor.shape.0 != record.shape);
        let Some((name, tensor, record)) = wrong.next() else {
            return Ok(());
        };
        let others = match wrong.count() {
            0 => String::new(),
            1 => " (and 1 other)".to_owned(),
            count => format!(" (and {count} others)"),
        };
        let (here, then) = (&tensor.shape, &record.shape);
        let fault = match opened.strategy {
            Some(_) => Fault::new(
                Kind::Strategy,
                format!(
                    "the source strategy makes a tensor of shape {here} of its shards, it was written \
                     as {then:?}{others}"
                ),
            )
            .file(source.base.join(manifest::NAME).display().to_string())
            .hint(
                "is it the strategy that these files were written by? If others have been written in \
                 their place, remove shardloom.json",
            ),
            None => Fault::new(
                Kind::Strategy,
                format!("is of shape {here} here, it was written as {then:?}{others}: this is a shard"),
            )
            .file(source.base.display().to_string())
            .hint(
                "read the directory of all ranks. If other files have been \
                 written in their place, remove shardloom.json",
            ),
        };
        Err(fault.tensor(&**name))
    }

    /// The source's tensors of which something is said.
    fn recorded<'a>(
        &'a self,
        opened: &'a Opened,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a SourceTensor, &'a TensorRecord)> {
        let tensors = opened.inventory.tensors.iter();
        tensors.filter_map(|(name, tensor)| Some((name, &**tensor, self.of(name)?)))
    }

    /// Checks that tensors are of the types that the manifest says, whose digests are of bytes alone. Local: the same on
    /// every process.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] naming the first that isn't.
    pub(super) fn check_types(&self, opened: &Opened) -> Result<()> {
        let mut wrong = self
            .recorded(opened)
            .filter(|(_, tensor, record)| tensor.dtype.safetensors_name() != record.dtype);
        let Some((name, tensor, record)) = wrong.next() else {
            return Ok(());
        };
        let (here, then) = (tensor.dtype, &record.dtype);
        let message = format!("is {here} here, it was written as {then}");
        Err(Fault::new(Kind::Corrupt, message)
            .tensor(&**name)
            .file(opened.source.base.display().to_string())
            .hint(
                "copy it again, or `shardloom verify --repair`; if others were meant to take its \
                 place, remove shardloom.json",
            ))
    }

    /// Whether what was read is what the manifests say, and no tensors are known to be `damaged`. Collective.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] naming a tensor, and the file that is damaged.
    pub(super) fn check(
        &self,
        proving: &Proving<'_>,
        plans: &[TensorPlan],
        traced: &Traced,
        shown: &Shown<'_>,
        mut damaged: BTreeSet<Arc<str>>,
    ) -> Result<()> {
        if !self.tells() {
            return Ok(());
        }
        let source = &proving.opened.source;
        for (plan, name) in plans
            .iter()
            .filter_map(|plan| Some((plan, unchanged(plan)?)))
        {
            let both = (self.of(name), shown.tensors.get(&*plan.name));
            if let (Some(old), Some(new)) = both
                && (&old.dtype, &old.shape) == (&new.dtype, &new.shape)
                && old.digest != new.digest
            {
                damaged.insert(name.clone());
            }
        }
        damaged.extend(self.damaged_before_change(plans, shown));
        if shown.by_file {
            damaged.extend(self.damaged_in_files(source, plans, shown));
        }
        self.check_traced(proving, plans, (traced, shown.traced), damaged)
    }

    /// Whether what was read of traced tensors, and of what changes others, is what the manifests say, and
    /// no others are `damaged`. Collective.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] naming a tensor, and the file that is damaged.
    pub(super) fn check_traced(
        &self,
        proving: &Proving<'_>,
        plans: &[TensorPlan],
        (traced, sums): (&Traced, &Sums),
        mut damaged: BTreeSet<Arc<str>>,
    ) -> Result<()> {
        let source = &proving.opened.source;
        damaged.extend(self.damaged_operands(source, plans));
        let known = |name: &str| Some(self.of(name)?.digest.0);
        damaged.extend(proving.damaged(traced, sums, known)?);
        self.settle(proving.world, source, damaged)
    }

    /// Fails if any tensors are `damaged`, of which each process knows some. Collective.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] naming a tensor, and the file that is damaged.
    fn settle(&self, world: &World, source: &Source, damaged: BTreeSet<Arc<str>>) -> Result<()> {
        let all: Vec<Vec<Arc<str>>> = all_gather(world, &damaged.into_iter().collect())?;
        let damaged: BTreeSet<Arc<str>> = all.into_iter().flatten().collect();
        let Some(first) = damaged.first() else {
            return Ok(());
        };
        let found = self.own.as_ref().map_or_else(Vec::new, |manifest| {
            let wanted = |name: &str| damaged.contains(name);
            let files = manifest.files.iter();
            files
                .flat_map(|file| bad_shards(&source.base, manifest, file, &wanted))
                .collect()
        });
        let found: BTreeSet<BadFile> = all_gather(world, &found)?.into_iter().flatten().collect();
        Err(fault(source, first, damaged.len(), &found))
    }

    /// The tensors that are changed on their way, and of which other bytes were read than were written once.
    /// Local: the same on every process.
    fn damaged_before_change(&self, plans: &[TensorPlan], shown: &Shown<'_>) -> BTreeSet<Arc<str>> {
        let mut read: HashMap<&str, Vec<u64>> = HashMap::new();
        for (name, digest) in shown.stored {
            read.entry(name).or_default().push(*digest);
        }
        let mut damaged = BTreeSet::new();
        for plan in plans.iter().filter(|plan| plan.is_changed()) {
            let read = read.get(&*plan.name);
            if let (Some(tensor), Some(read)) = (plan.only_source(), read)
                && let Some(old) = self.digest(tensor)
                && read.iter().any(|digest| *digest != old)
            {
                damaged.insert(tensor.name.clone());
            }
        }
        damaged
    }

    /// What changes them, such as scales, and is not as it was written; they are small, and read again. Local.
    fn damaged_operands(&self, source: &Source, plans: &[TensorPlan]) -> BTreeSet<Arc<str>> {
        let values = plans.iter().flat_map(|plan| &plan.pieces);
        let values = values.filter_map(|(_, tensor)| tensor.value.as_ref());
        let operands = values
            .flat_map(|value| &value.steps)
            .flat_map(Step::operands);
        let names: BTreeSet<&str> = operands.map(|operand| &*operand.name).collect();
        let wanted = |name: &str| names.contains(name) && self.of(name).is_some();
        let files = self.own.iter().filter(|_| !names.is_empty());
        let files =
            files.flat_map(|manifest| manifest.files.iter().map(move |file| (manifest, file)));
        let bad =
            files.flat_map(|(manifest, file)| bad_shards(&source.base, manifest, file, &wanted));
        bad.filter_map(|bad| bad.tensor).map(Arc::from).collect()
    }

    /// The tensors whose shards, taken over file by file, are not as they were written; as far as
    /// this process has records of both. Local.
    fn damaged_in_files(
        &self,
        source: &Source,
        plans: &[TensorPlan],
        shown: &Shown<'_>,
    ) -> BTreeSet<Arc<str>> {
        let mut damaged = BTreeSet::new();
        let Some(manifest) = &self.own else {
            return damaged;
        };
        let old: HashMap<&str, &FileRecord> = manifest
            .files
            .iter()
            .map(|file| (file.path.as_str(), file))
            .collect();
        let mut new: HashMap<(&str, &str), Hex> = HashMap::new();
        for (structures, files) in shown.files {
            for file in files {
                let placed = file.structure.and_then(|number| structures.get(number));
                let placed = placed.map_or(&[][..], Vec::as_slice);
                for ((name, _), crc) in placed.iter().zip(&file.shards) {
                    new.insert((stem(&file.path), name), *crc);
                }
            }
        }
        for (plan, name) in plans
            .iter()
            .filter_map(|plan| Some((plan, unchanged(plan)?)))
        {
            let files = source.catalog.ranks.get(&plan.destination.first_rank);
            let Some(record) = files
                .and_then(|files| files.first())
                .and_then(|file| old.get(file.path.as_str()))
            else {
                continue;
            };
            let mut shards = manifest.placed(record).iter().zip(&record.shards);
            let old = shards.find(|((other, _), _)| **other == **name);
            let new = new.get(&(stem(&record.path), &*plan.name));
            if let (Some((_, old)), Some(new)) = (old, new)
                && old != new
            {
                damaged.insert(name.clone());
            }
        }
        damaged
    }
}

/// The names in files that no manifest tells of.
fn untold(source: &Source, topology: &Topology, words: &[Option<Word>]) -> BTreeSet<Arc<str>> {
    let mut places: BTreeSet<(u32, u32)> = BTreeSet::new();
    for (members, seen) in topology.nodes.iter().zip(&source.reach.seen) {
        let leader = members
            .first()
            .and_then(|leader| words.get(*leader as usize));
        match leader.and_then(Option::as_ref) {
            Some(word) => places.extend(word.untold.iter().copied()),
            None => {
                let files = |rank: &u32| source.catalog.ranks.get(rank).map_or(0, Vec::len);
                for rank in seen.iter() {
                    let numbers = (0u32..).take(files(rank));
                    places.extend(numbers.map(|number| (*rank, number)));
                }
            }
        }
    }
    let mut schemas = HashSet::new();
    let mut names = BTreeSet::new();
    for (rank, number) in places {
        let files = source.catalog.ranks.get(&rank);
        let Some(file) = files.and_then(|files| files.get(number as usize)) else {
            continue;
        };
        if schemas.insert(Arc::as_ptr(&file.schema)) {
            names.extend(file.schema.entries.iter().map(|entry| entry.name.clone()));
        }
    }
    names
}

/// The source tensor that `plan` carries over unchanged, if it does.
fn unchanged(plan: &TensorPlan) -> Option<&Arc<str>> {
    let tensor = plan.only_source().filter(|_| !plan.is_changed())?;
    Some(&tensor.name)
}

fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}

fn fault(source: &Source, first: &Arc<str>, count: usize, found: &BTreeSet<BadFile>) -> Fault {
    let others = match count {
        1 => String::new(),
        2 => " (nor is 1 other tensor)".to_owned(),
        _ => format!(" (nor are {} other tensors)", count - 1),
    };
    let hint = format!("nothing was put in place. {CHANGED}");
    let bad = found.first();
    let (tensor, file, message) = match bad {
        Some(bad) => {
            let files: BTreeSet<&str> = found.iter().map(|bad| &*bad.file).collect();
            let more = match files.len() {
                1 => String::new(),
                2 => "; 1 more file is damaged".to_owned(),
                more => format!("; {} more files are damaged", more - 1),
            };
            let message =
                format!("its bytes are not as they were when the source was written{others}{more}");
            let tensor = bad.tensor.as_deref().unwrap_or(first);
            (tensor, &*bad.file, message)
        }
        None => {
            let message = format!("what was read is not what the source's manifest says{others}");
            (&**first, manifest::NAME, message)
        }
    };
    Fault::new(Kind::Corrupt, message)
        .tensor(tensor)
        .file(source.base.join(file).display().to_string())
        .hint(hint)
}
