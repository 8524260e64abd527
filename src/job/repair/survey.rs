//! What damaged files still hold, also of each other: files may have changed places.

use crate::job::repair::parts::{Key, parts};
use crate::job::verify::reader::Reader;
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Manifest, Placed, structure};
use crate::tensor::digest::{finish, shift};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

/// Structures that a file without a readable header is tried as.
const STRUCTURES_MAX: usize = 16;

/// What a damaged file holds, read as one of the manifest's structures; or whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Holding {
    /// The file, by its number in the manifest.
    pub(super) file: usize,
    /// The structure and, by position in it, the shards that somebody needs, each with its CRC; none:
    /// the whole file, without regard to tensors.
    pub(super) shards: Option<(usize, Vec<(usize, u64)>)>,
    /// For a whole file: length and CRC.
    pub(super) whole: (u64, u64),
}

/// What the files of `suspects` consist of: all that copies are sought for. Local.
pub(super) fn needed<'m>(manifest: &'m Manifest, suspects: &[usize]) -> HashSet<Key<'m>> {
    let records = suspects.iter().filter_map(|n| manifest.files.get(*n));
    records
        .flat_map(|record| parts(manifest, record))
        .map(|part| part.key())
        .collect()
}

/// Looks at damaged files.
pub(super) struct Survey<'m> {
    pub(super) directory: &'m Path,
    pub(super) manifest: &'m Manifest,
    pub(super) suspects: &'m [usize],
    pub(super) needed: &'m HashSet<Key<'m>>,
}

impl Survey<'_> {
    /// What the file with this number holds, and how many bytes were read for that. Local: what can't
    /// be read isn't held.
    pub(super) fn of(&self, number: usize, reader: &mut Reader) -> (Vec<Holding>, u64) {
        let Some(record) = self.manifest.files.get(number) else {
            return (Vec::new(), 0);
        };
        let Ok(file) = ReadFile::open(&self.directory.join(&record.path)) else {
            return (Vec::new(), 0);
        };
        let mut found = Vec::new();
        let mut read = 0;
        for structure in self.structures(&file, record) {
            let shards = self.shards(&file, structure, reader);
            read += file.size();
            if !shards.is_empty() {
                found.push(Holding {
                    file: number,
                    shards: Some((structure, shards)),
                    whole: (0, 0),
                });
            }
        }
        let bare = self.records().any(|other| {
            other.structure.is_none() && other.bytes == file.size() && file.size() > 0
        });
        if bare && let Ok(sum) = reader.residue(&file, 0..file.size()) {
            read += file.size();
            found.push(Holding {
                file: number,
                shards: None,
                whole: (file.size(), finish(sum, file.size())),
            });
        }
        (found, read)
    }

    fn records(&self) -> impl Iterator<Item = &FileRecord> {
        let files = &self.manifest.files;
        self.suspects.iter().filter_map(|number| files.get(*number))
    }

    /// The structures that a file may have: its own, and that of its header, or those of other
    /// damaged files if the header can't be read.
    fn structures(&self, file: &ReadFile, record: &FileRecord) -> Vec<usize> {
        let mut found: Vec<usize> = record.structure.into_iter().collect();
        let others = self.records().filter_map(|record| record.structure);
        let others: std::collections::BTreeSet<usize> = others.collect();
        let header = Format::recognise(file).and_then(|format| format.read(file));
        let header = header.map(|schema| sorted(&structure(&schema)));
        for other in others {
            let Some(placed) = self.manifest.structures.get(other) else {
                continue;
            };
            let fits = match &header {
                Ok(header) => header.len() == placed.len() && *header == sorted(placed),
                Err(_) => found.len() < STRUCTURES_MAX,
            };
            if fits && !found.contains(&other) {
                found.push(other);
            }
        }
        found
    }

    /// The needed shards that are found in a file where `structure` has them.
    fn shards(&self, file: &ReadFile, structure: usize, reader: &mut Reader) -> Vec<(usize, u64)> {
        let placed = self.manifest.structures.get(structure);
        let mut found = Vec::new();
        for (position, (name, ranges)) in placed.into_iter().flatten().enumerate() {
            let (mut sum, mut length) = (0, 0);
            let whole = ranges.iter().all(|(begin, end)| {
                let part = if *end <= file.size() {
                    reader.residue(file, *begin..*end).ok()
                } else {
                    None
                };
                length += end - begin;
                part.is_some_and(|part| {
                    sum = shift(sum, end - begin) ^ part;
                    true
                })
            });
            let crc = finish(sum, length);
            if whole && self.needed.contains(&(name.as_str(), length, crc)) {
                found.push((position, crc));
            }
        }
        found
    }
}

fn sorted(placed: &[Placed]) -> Vec<Placed> {
    let mut placed = placed.to_vec();
    placed.sort();
    placed
}
