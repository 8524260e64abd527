//! The manifest of a written directory, `shardloom.json`: every file with its size and CRC, every
//! tensor with its digest. It ends with a CRC of itself.

use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::file_record::crc;
use crate::store::full_dir::check_inside;
use crate::store::io::{self, ReadFile, Stamp, Standing};
use crate::store::whole::Whole;
use crate::strategy::json::{self, Document};
use crate::tensor::digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

pub use crate::store::file_record::{FileParts, FileRecord};
pub use crate::store::hex::Hex;

/// Name of the file.
pub const NAME: &str = "shardloom.json";

/// Version that is written; older ones are read, too.
pub const SCHEMA: u32 = 2;

/// Largest manifest that is read.
pub(crate) const BYTES_MAX: u64 = 1 << 30;

/// What precedes the CRC of all before, at the end of the file.
const MARK: &[u8] = b",\"crc64\":\"";

/// Digits of the CRC and what follows them.
const END_BYTES: usize = 16 + 3;

/// A tensor by its full shape and digest, whatever its layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Element type, as safetensors spells it.
    pub dtype: String,
    /// Full shape.
    pub shape: Vec<u64>,
    /// CRC-64/NVME of its row-major bytes.
    pub digest: Hex,
}

/// Where a tensor's bytes are in a file: its name, and byte ranges in order.
pub type Placed = (String, Vec<(u64, u64)>);

/// What a directory holds, and of which job it is the result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this record.
    pub schema: u32,
    /// Name and version of the program.
    pub tool: String,
    /// The command.
    pub command: String,
    /// Fingerprint of source, strategies and options.
    pub job: Hex,
    /// CRC of the strategies' contents, by `source` and `destination`; none means full weights.
    pub layouts: BTreeMap<String, Option<Hex>>,
    /// What the files of ranks are cut by; none of full weights, and of what tells its own layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Document>,
    /// What this program has noted of how tensors lie, such as how rows are fused: files of some formats have no place
    /// for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, String>,
    /// What was asked for, and where the rest of it lies; none in a record of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// Fingerprint of what was asked for and of the paths that were read, of a job that replaces its own earlier results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Hex>,
    /// The tensors of the whole checkpoint.
    pub tensors: BTreeMap<String, TensorRecord>,
    /// What files are made of: those of many ranks are alike.
    pub structures: Vec<Vec<Placed>>,
    /// The files here, by path.
    pub files: Vec<FileRecord>,
    /// What the bytes survive if they were not flushed: a start of the machine, or nothing; else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survives: Option<String>,
    /// Files of the directory that this one has replaced which are here as they were, unchecked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<String>,
}

/// The structure of a file, as manifests have it.
#[must_use]
pub fn structure(schema: &FileSchema) -> Vec<Placed> {
    let placed = |entry: &crate::catalog::Entry| {
        let ranges = entry.segments.iter().map(|s| (s.start, s.end));
        (entry.name.to_string(), ranges.collect())
    };
    schema.entries.iter().map(placed).collect()
}

/// The tensors of a file whose bytes are part of its layout: a job's counts.
pub fn counts(schema: &FileSchema) -> impl Iterator<Item = (String, TensorRecord)> {
    let laid = schema.laid();
    schema.entries.iter().filter_map(move |entry| {
        let [range] = &entry.segments[..] else {
            return None;
        };
        let bytes = laid.get(range)?;
        let record = TensorRecord {
            dtype: entry.dtype.safetensors_name().to_owned(),
            shape: entry.shape.0.clone(),
            digest: Hex(digest::finish(digest::residue(bytes), bytes.len() as u64)),
        };
        Some((entry.name.to_string(), record))
    })
}

impl Manifest {
    /// Takes files with their structures from another list.
    pub fn add(&mut self, structures: &[Vec<Placed>], files: Vec<FileRecord>) {
        let known: HashMap<&Vec<Placed>, usize> = self.structures.iter().zip(0..).collect();
        let found: Vec<Option<usize>> = structures.iter().map(|s| known.get(s).copied()).collect();
        let mut renamed = Vec::new();
        for (structure, found) in structures.iter().zip(found) {
            renamed.push(found.unwrap_or_else(|| {
                self.structures.push(structure.clone());
                self.structures.len() - 1
            }));
        }
        self.files.extend(files.into_iter().map(|mut file| {
            file.structure = file.structure.and_then(|s| renamed.get(s).copied());
            file
        }));
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Kind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| {
            Fault::new(Kind::Internal, format!("can't write the manifest: {error}"))
        })?;
        bytes.pop();
        let crc = Hex(digest::checksum(&bytes));
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(format!("{crc}\"}}\n").as_bytes());
        Ok(bytes)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if a byte of it is not as it was written, [`Kind::Unsupported`] for a newer
    /// version.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let damaged = |why: &str| Fault::new(Kind::Corrupt, format!("the manifest {why}"));
        let cut = bytes.len().saturating_sub(END_BYTES + MARK.len());
        let (body, end) = bytes.split_at(cut);
        let expected = Hex(digest::checksum(body));
        let end = std::str::from_utf8(end).unwrap_or_default();
        let mark = std::str::from_utf8(MARK).unwrap_or_default();
        if end != format!("{mark}{expected}\"}}\n") {
            return Err(damaged(
                "is damaged: its bytes have another CRC than it says",
            ));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| damaged(&format!("can't be read: {error}")))?;
        if !(1..=SCHEMA).contains(&manifest.schema) {
            let message = format!("the manifest has version {}", manifest.schema);
            return Err(Fault::new(Kind::Unsupported, message));
        }
        for file in &manifest.files {
            check_inside(&file.path)?;
            let structure = file.structure.map(|s| manifest.structures.get(s));
            let tensors = match structure {
                None => 0,
                Some(Some(structure)) => structure.len(),
                Some(None) => return Err(damaged("names a structure that it hasn't")),
            };
            if tensors != file.shards.len() {
                return Err(damaged("has another number of shards than tensors").file(&*file.path));
            }
        }
        Ok(manifest)
    }

    /// The manifest of `directory`, if it has one.
    ///
    /// # Errors
    /// As [`Manifest::parse`], naming the file.
    pub fn read(directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(NAME);
        if io::standing(&path)? != Standing::File {
            return Ok(None);
        }
        let bytes = ReadFile::open(&path)?.read_all(BYTES_MAX)?;
        let parsed = Manifest::parse(&bytes);
        parsed
            .map(Some)
            .map_err(|fault| fault.file(path.display().to_string()))
    }

    /// The same, where one that is damaged or of a newer version is none.
    ///
    /// # Errors
    /// [`Kind::Io`] and whatever else keeps it from being read.
    pub fn read_sound(directory: &Path) -> Result<Option<Manifest>> {
        match Manifest::read(directory) {
            Err(fault) if matches!(fault.kind, Kind::Corrupt | Kind::Unsupported) => Ok(None),
            other => other,
        }
    }

    /// Whether `directory` has all the files in full size.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn stands(&self, directory: &Path) -> Result<bool> {
        for file in &self.files {
            if io::size(&directory.join(&file.path))? != Some(file.bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the bytes are surely those that were written: they were flushed, or nothing has happened since that
    /// they don't survive, which is one of `survived`, or the files that are read have the CRCs that it tells.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn is_sure(&self, directory: &Path, survived: &[String]) -> Result<bool> {
        match &self.survives {
            None => return Ok(true),
            Some(survives) if survived.contains(survives) => return Ok(true),
            Some(_) => {}
        }
        for file in &self.files {
            if crc(&directory.join(&file.path))? != file.crc64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether `directory` has all files of weights as they were written: no later change than the manifest's own,
    /// or the bytes of which it tells the CRC. Notes beside the weights must be there, and may have gone on.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn stands_unchanged(&self, directory: &Path) -> Result<bool> {
        let Some(own) = Stamp::of(&directory.join(NAME))? else {
            return Ok(false);
        };
        for file in &self.files {
            // The size is one of a regular file alone.
            let size = io::size(&directory.join(&file.path))?;
            let is_note = file.structure.is_none() && size.is_some();
            if !is_note && !file.stands_since(&own, directory, size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first file of `directory` that is there, and not as it was written.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn first_changed(&self, directory: &Path) -> Result<Option<&str>> {
        let own = Stamp::of(&directory.join(NAME))?;
        for file in &self.files {
            let path = directory.join(&file.path);
            if io::standing(&path)? == Standing::Nothing {
                continue;
            }
            let stands = match &own {
                Some(own) => file.stands_since(own, directory, io::size(&path)?)?,
                None => false,
            };
            if !stands {
                return Ok(Some(&file.path));
            }
        }
        Ok(None)
    }

    /// Whether the file of `record` in `directory` is as long as it was written, and neither was written nor
    /// changed in any other way since the manifest at `own` was.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn stands_untouched(own: &Path, directory: &Path, record: &FileRecord) -> Result<bool> {
        let stamps = (Stamp::of(own)?, Stamp::of(&directory.join(&record.path))?);
        let (Some(own), Some(file)) = stamps else {
            return Ok(false);
        };
        Ok(file.bytes() == record.bytes && file.is_no_later_than(&own))
    }

    /// The files in `directory`, but for hidden ones, that are weights by their paths, as `is_weights` says, and that
    /// it neither lists nor has as carried along. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn others(
        &self,
        directory: &Path,
        is_weights: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let listed = self.files.iter().map(|file| &file.path);
        let known: BTreeSet<&String> = listed.chain(&self.carried).collect();
        let hidden = |path: &str| path.split('/').any(|part| part.starts_with('.'));
        let mut others = io::list_files(directory)?;
        others.retain(|path| is_weights(path) && !hidden(path) && !known.contains(path));
        Ok(others)
    }

    /// Whether each of the `entries` (name, whether a directory) of the `folder` in its directory is what was carried
    /// along, or has only that.
    #[must_use]
    pub fn only_carried(&self, folder: &str, entries: &[(String, bool)]) -> bool {
        let carried = |(name, is_directory): &(String, bool)| {
            let path = format!("{folder}/{name}");
            self.carried.iter().any(|carried| match is_directory {
                true => carried
                    .strip_prefix(&path)
                    .is_some_and(|rest| rest.starts_with('/')),
                false => *carried == path,
            })
        };
        !entries.is_empty() && entries.iter().all(carried)
    }

    /// What the files are cut by, as a strategy file in JSON form, if it tells.
    ///
    /// # Errors
    /// [`Kind::Internal`].
    pub fn strategy_bytes(&self) -> Result<Option<Vec<u8>>> {
        self.strategy.as_ref().map(json::encode).transpose()
    }

    /// The first of these files (path, size) that it doesn't list with that size.
    pub fn first_untold<'a>(
        &self,
        files: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Option<&'a str> {
        let told = self.files.iter().map(|file| (&*file.path, file.bytes));
        let told: HashMap<&str, u64> = told.collect();
        let mut files = files.into_iter();
        let untold = files.find(|(path, bytes)| told.get(path) != Some(bytes));
        untold.map(|(path, _)| path)
    }

    /// The tensors of a file.
    #[must_use]
    pub fn placed(&self, file: &FileRecord) -> &[Placed] {
        let structure = file.structure.and_then(|s| self.structures.get(s));
        structure.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P128
    #[test]
    fn every_flipped_bit_of_a_manifest_is_noticed() {
        let mut manifest = Manifest {
            schema: SCHEMA,
            command: "reshard".into(),
            ..Manifest::default()
        };
        let placed = vec![("a".to_owned(), vec![(8, 12)])];
        let file = |path: &str| FileRecord {
            path: path.into(),
            bytes: 12,
            crc64: Hex(7),
            structure: Some(0),
            shards: vec![Hex(1)],
        };
        manifest.add(std::slice::from_ref(&placed), vec![file("b")]);
        manifest.add(
            &[Vec::new(), placed],
            vec![FileRecord {
                structure: Some(1),
                ..file("a")
            }],
        );
        assert_eq!(manifest.files[0].structure, Some(0));
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::parse(&bytes).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
