//! What lies where: for each file its tensors with dtype, shape and byte ranges.
//!
//! A catalog is *found* from headers for a source and *designed* before the first write for a
//! destination; the type is the same. De-duplication is no mode: a holder that the catalog lacks is
//! no candidate.
//!
//! *Absent on purpose*: bytes of tensors, and how a file is opened.

mod part;

use crate::fault::{Fault, Kind, Result};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
pub use part::{Held, Part};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// One tensor of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the tensor.
    pub name: Arc<str>,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape in this file (a shard's shape, in elements).
    pub shape: Shape,
    /// The byte ranges of the file that hold its bytes, in order; one, except in ckpt files.
    pub segments: Vec<Range<u64>>,
}

impl Entry {
    /// Number of bytes of the tensor.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.end - s.start).sum()
    }

    /// The block that holds all of bytes `range` of the tensor: its range in the tensor and in the
    /// file. None if the range is cut over several.
    #[must_use]
    pub fn segment_of(&self, range: &Range<u64>) -> Option<(Range<u64>, Range<u64>)> {
        let mut before = 0;
        for segment in &self.segments {
            let end = before + (segment.end - segment.start);
            if before <= range.start && range.end <= end {
                return Some((before..end, segment.clone()));
            }
            before = end;
        }
        None
    }

    /// Calls `visit(file_offset, range of the tensor's bytes)` for each file range that holds bytes
    /// `range` of the tensor, in order.
    ///
    /// # Errors
    /// Whatever `visit` returns.
    pub fn locate(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(u64, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut before = 0;
        for segment in &self.segments {
            let length = segment.end - segment.start;
            let begin = range.start.max(before);
            let end = range.end.min(before + length);
            if begin < end {
                visit(segment.start + (begin - before), begin..end)?;
            }
            before += length;
        }
        Ok(())
    }
}

/// The structure of a file: where each tensor is, and every byte that is no tensor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSchema {
    /// The tensors, in file order.
    pub entries: Vec<Entry>,
    /// Free text by key (safetensors' `__metadata__`).
    pub metadata: BTreeMap<String, String>,
    /// What else the file holds: `(offset, bytes)`. Filled for designed files only.
    pub literals: Vec<(u64, Vec<u8>)>,
    /// Size of the file in bytes.
    pub size: u64,
    /// What there is to say of entries that are parts of a tensor, or don't lie row after row; and of
    /// what is no tensor.
    pub held: Held,
    index: HashMap<Arc<str>, usize>,
}

impl FileSchema {
    /// Puts a schema together.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if a name occurs twice.
    pub fn new(
        entries: Vec<Entry>,
        metadata: BTreeMap<String, String>,
        literals: Vec<(u64, Vec<u8>)>,
        size: u64,
    ) -> Result<Self> {
        let mut index = HashMap::with_capacity(entries.len());
        for (position, entry) in entries.iter().enumerate() {
            if index.insert(entry.name.clone(), position).is_some() {
                let fault = Fault::new(Kind::Corrupt, "the file has two tensors of this name");
                return Err(fault.tensor(&*entry.name));
            }
        }
        Ok(FileSchema {
            entries,
            metadata,
            literals,
            size,
            held: Held::default(),
            index,
        })
    }

    /// The bytes that are part of the layout, by where they lie: among them those of tensors, a job's counts. The first
    /// literal is the header.
    #[must_use]
    pub fn laid(&self) -> HashMap<Range<u64>, &[u8]> {
        let literals = self.literals.iter().skip(1);
        let laid = literals.map(|(at, bytes)| (*at..*at + bytes.len() as u64, bytes.as_slice()));
        laid.collect()
    }

    /// The same with what there is to say beside the entries. A tensor whose parts are entries is found by
    /// the first of them.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if a part has the name of another tensor.
    pub fn holding(mut self, held: Held) -> Result<Self> {
        for (position, part) in held.positions() {
            let own = self.entries.get(position).map(|entry| entry.name.clone());
            match self.index.get(&part.of) {
                None => {
                    self.index.insert(part.of.clone(), position);
                }
                Some(first) if held.is_of(*first, &part.of) || own.as_ref() == Some(&part.of) => {}
                Some(_) => {
                    let fault = Fault::new(Kind::Corrupt, "the file has two tensors of this name");
                    return Err(fault.tensor(&*part.of));
                }
            }
        }
        self.held = held;
        Ok(self)
    }

    /// The same without the entries of these names.
    ///
    /// # Errors
    /// As [`FileSchema::new`].
    pub fn without(&self, left: &BTreeSet<&str>) -> Result<FileSchema> {
        let (mut kept, mut held) = (Vec::new(), Held::default());
        for (position, entry) in self.entries.iter().enumerate() {
            if !left.contains(&*entry.name) {
                let number = u32::try_from(kept.len()).unwrap_or(u32::MAX);
                let part = self.held.part(position).cloned();
                held.parts.extend(part.map(|part| (number, part)));
                kept.push(entry.clone());
            }
        }
        held.values.clone_from(&self.held.values);
        held.agreed.clone_from(&self.held.agreed);
        let fresh = FileSchema::new(kept, self.metadata.clone(), Vec::new(), self.size)?;
        fresh.holding(held)
    }

    /// The tensor called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.index
            .get(name)
            .map(|position| &self.entries[*position])
    }

    /// Position of the tensor called `name` in [`FileSchema::entries`].
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug)]
pub struct ShardFile {
    /// Path inside the checkpoint's directory (`rank_3/net.safetensors`), `/`-separated.
    pub path: String,
    /// What is in it. Files of equal structure share one schema.
    pub schema: Arc<FileSchema>,
}

/// A small file beside the weights. Its contents are held once, however many have it.
#[derive(Clone, Debug, Hash)]
pub struct SmallFile {
    /// Path inside the checkpoint's directory, `/`-separated.
    pub path: String,
    /// Its contents.
    pub bytes: Arc<Vec<u8>>,
}

impl SmallFile {
    /// A file of these contents.
    #[must_use]
    pub fn new(path: impl Into<String>, bytes: Vec<u8>) -> SmallFile {
        SmallFile {
            path: path.into(),
            bytes: Arc::new(bytes),
        }
    }
}

/// All files of a checkpoint, by rank. Full weights are those of rank 0.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The files of each rank.
    pub ranks: BTreeMap<u32, Vec<ShardFile>>,
    index: Index,
}

/// Ranks with fewer files are looked through.
const FILES_FEW: usize = 8;

/// Where the tensors of a rank are that has many files.
#[derive(Debug, Default)]
struct RankIndex {
    files: usize,
    places: HashMap<Arc<str>, (u32, u32)>,
}

/// The places of all tensors of ranks with many files, found when first asked for.
#[derive(Debug, Default)]
struct Index(OnceLock<HashMap<u32, RankIndex>>);

impl Clone for Index {
    fn clone(&self) -> Self {
        Index::default()
    }
}

impl Index {
    /// The index of `rank` if its files are still as many as when it was made.
    fn of(&self, ranks: &BTreeMap<u32, Vec<ShardFile>>, rank: u32) -> Option<&RankIndex> {
        let all = self.0.get_or_init(|| {
            let many = ranks.iter().filter(|(_, files)| files.len() > FILES_FEW);
            many.map(|(rank, files)| (*rank, RankIndex::of(files)))
                .collect()
        });
        let files = ranks.get(&rank)?.len();
        all.get(&rank).filter(|index| index.files == files)
    }
}

impl RankIndex {
    fn of(files: &[ShardFile]) -> RankIndex {
        let mut places = HashMap::new();
        for (file, shard) in (0u32..).zip(files) {
            for (entry, found) in (0u32..).zip(&shard.schema.entries) {
                places.entry(found.name.clone()).or_insert((file, entry));
            }
        }
        RankIndex {
            files: files.len(),
            places,
        }
    }
}

/// Place of a tensor's shard in a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The rank that holds it.
    pub rank: u32,
    /// Which of the rank's files.
    pub file: u32,
    /// Which entry of the file.
    pub entry: u32,
}

impl Catalog {
    /// The catalog of these files.
    #[must_use]
    pub fn of(ranks: BTreeMap<u32, Vec<ShardFile>>) -> Self {
        Catalog {
            ranks,
            index: Index::default(),
        }
    }

    /// Gives file number `file` of `rank` another structure, with the same tensors; the file's path, if
    /// there is one.
    pub fn restructure(&mut self, rank: u32, file: u32, schema: Arc<FileSchema>) -> Option<&str> {
        let file = self.ranks.get_mut(&rank)?.get_mut(file as usize)?;
        file.schema = schema;
        // Its tensors may lie in another order.
        self.index = Index::default();
        Some(&file.path)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let files = self.ranks.values().flatten();
        files.map(|file| file.schema.size).sum()
    }

    /// The paths of all files, by rank.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let files = self.ranks.values().flatten();
        files.map(|file| file.path.clone()).collect()
    }

    /// Where rank `rank` has tensor `name`, if it has it.
    #[must_use]
    pub fn find(&self, rank: u32, name: &str) -> Option<Place> {
        let files = self.ranks.get(&rank)?;
        if files.len() > FILES_FEW
            && let Some(index) = self.index.of(&self.ranks, rank)
        {
            let (file, entry) = *index.places.get(name)?;
            return Some(Place { rank, file, entry });
        }
        files.iter().enumerate().find_map(|(file, shard)| {
            let entry = u32::try_from(shard.schema.position(name)?).ok()?;
            Some(Place {
                rank,
                file: u32::try_from(file).ok()?,
                entry,
            })
        })
    }

    /// Where those of `ranks` that have tensor `name` have it. Files of equal structure are asked once.
    pub fn find_all(&self, ranks: impl Iterator<Item = u32>, name: &str) -> Vec<Place> {
        let mut known: Option<(*const FileSchema, Option<u32>)> = None;
        let place = |rank: u32| {
            let [file] = &self.ranks.get(&rank)?[..] else {
                return self.find(rank, name);
            };
            let schema = Arc::as_ptr(&file.schema);
            let entry = match known {
                Some((of, entry)) if of == schema => entry,
                _ => {
                    let entry = file.schema.position(name);
                    let entry = entry.and_then(|entry| u32::try_from(entry).ok());
                    known = Some((schema, entry));
                    entry
                }
            };
            let entry = entry?;
            Some(Place {
                rank,
                file: 0,
                entry,
            })
        };
        ranks.filter_map(place).collect()
    }

    /// The file at `place`.
    ///
    /// # Panics
    /// Never for a place that this catalog gave out.
    #[must_use]
    pub fn file(&self, place: Place) -> &ShardFile {
        &self.ranks[&place.rank][place.file as usize]
    }

    /// The entry at `place`.
    ///
    /// # Panics
    /// Never for a place that this catalog gave out.
    #[must_use]
    pub fn entry(&self, place: Place) -> &Entry {
        &self.file(place).schema.entries[place.entry as usize]
    }

    /// Every distinct schema with the lowest rank that has it; in a checkpoint that is not
    /// de-duplicated there is one a stage.
    pub fn distinct_schemas(&self) -> impl Iterator<Item = (u32, &Arc<FileSchema>)> {
        let mut seen = std::collections::HashSet::new();
        self.ranks
            .iter()
            .flat_map(|(rank, files)| files.iter().map(move |file| (*rank, &file.schema)))
            .filter(move |(_, schema)| seen.insert(Arc::as_ptr(schema)))
    }
}
