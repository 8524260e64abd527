//! Parts of a directory that tells its own layout, as they lie in full weights.

use crate::fault::Result;
use crate::source::{Listed, Weights, chosen, list, told};
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Hex, Manifest, Placed};
use crate::tensor::dtype::Dtype;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// A part of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// The tensor's element type.
    pub(super) dtype: Dtype,
    /// Its full shape.
    full: Shape,
    /// Which part it is.
    pub(super) region: Region,
}

/// What the directory tells of the parts in its files, by file and tensor.
#[derive(Debug, Default)]
pub(super) struct Cuts(BTreeMap<(String, String), Cut>);

impl Cuts {
    /// Those of `directory`; nothing where it doesn't tell them, or can't any more. Local.
    pub(super) fn of(directory: &Path) -> Cuts {
        Cuts::told(directory).unwrap_or_default()
    }

    fn told(directory: &Path) -> Result<Cuts> {
        let listing = list(directory, None, &Weights::Told)?;
        let (told, inner) = (told(directory, &listing)?, &listing.inner);
        let mut cuts = BTreeMap::new();
        let (Some(told), Some(inner)) = (told, inner) else {
            return Ok(Cuts(cuts));
        };
        for (file, content) in &told.own.contents {
            let path = format!("{}{file}", inner.directory);
            for (name, dtype, full, region) in content.chunks() {
                let cut = Cut {
                    dtype,
                    full,
                    region,
                };
                cuts.insert((path.clone(), name.to_owned()), cut);
            }
        }
        Ok(Cuts(cuts))
    }

    /// Whether nothing is told.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is told of the part of tensor `name` in `file`.
    pub(super) fn get(&self, file: &str, name: &str) -> Option<&Cut> {
        self.0.get(&(file.to_owned(), name.to_owned()))
    }

    /// Where the parts of the damaged files are in the full weights in `room`, as the manifest of these
    /// would say it. That they are the same, their CRC tells. Local.
    ///
    /// # Errors
    /// As reading the full weights.
    pub(super) fn within(
        &self,
        room: &Path,
        manifest: &Manifest,
        suspects: &[usize],
    ) -> Result<Manifest> {
        let mut made = Manifest::default();
        let listing = chosen(room, None, None)?;
        for Listed { path, .. } in listing.ranks.values().flatten() {
            let file = ReadFile::open(&room.join(path))?;
            let schema = Format::recognise(&file)?.read(&file)?;
            let (mut placed, mut shards): (Vec<Placed>, Vec<Hex>) = (Vec::new(), Vec::new());
            for record in suspects.iter().filter_map(|n| manifest.files.get(*n)) {
                for ((name, _), crc) in manifest.placed(record).iter().zip(&record.shards) {
                    let cut = self.get(&record.path, name);
                    let (Some(cut), Some(entry)) = (cut, schema.get(name)) else {
                        continue;
                    };
                    if (entry.dtype, &entry.shape) != (cut.dtype, &cut.full) {
                        continue;
                    }
                    let mut ranges = Vec::new();
                    for run in cut.runs() {
                        entry.locate(run, |offset, run| {
                            ranges.push((offset, offset + (run.end - run.start)));
                            Ok(())
                        })?;
                    }
                    placed.push((name.clone(), ranges));
                    shards.push(*crc);
                }
            }
            made.structures.push(placed);
            made.files.push(FileRecord {
                path: path.clone(),
                bytes: schema.size,
                crc64: Hex(0),
                structure: Some(made.structures.len() - 1),
                shards,
            });
        }
        Ok(made)
    }
}

impl Cut {
    /// The bytes of the full tensor, row after row, that are its own.
    fn runs(&self) -> Vec<Range<u64>> {
        let width = u64::from(self.dtype.bits() / 8);
        let (full, own) = (&self.full.0, &self.region.shape.0);
        // From the last dimension that isn't whole on, elements lie together.
        let cut = (0..full.len()).rev().find(|d| own[*d] != full[*d]);
        let inner = cut.unwrap_or(0);
        let strides = self.full.strides();
        let count = |dims: &[u64]| dims.iter().product::<u64>();
        let length = count(own.get(inner..).unwrap_or_default()) * width;
        let rows = own.get(..inner).unwrap_or_default();
        let run = |mut number: u64| {
            let mut at = 0;
            for (dimension, stride) in strides.iter().enumerate() {
                let below = rows.get(dimension + 1..).unwrap_or_default();
                let place = match dimension < inner {
                    true => number / count(below),
                    false => 0,
                };
                number -= place * count(below);
                at += (self.region.offset[dimension] + place) * stride * width;
            }
            at..at + length
        };
        (0..count(rows)).map(run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_row_by_row() {
        let cut = |full: &[u64], offset: &[u64], own: &[u64]| Cut {
            dtype: Dtype::BF16,
            full: Shape(full.to_vec()),
            region: Region {
                offset: offset.to_vec(),
                shape: Shape(own.to_vec()),
            },
        };
        let runs = |full: &[u64], offset: &[u64], own: &[u64]| cut(full, offset, own).runs();
        assert_eq!(runs(&[4, 6], &[2, 0], &[2, 6]), vec![24..48]);
        assert_eq!(runs(&[4, 6], &[1, 3], &[2, 3]), [18..24, 30..36]);
        assert_eq!(
            runs(&[2, 3, 4], &[0, 1, 2], &[2, 2, 2]),
            [12..16, 20..24, 36..40, 44..48]
        );
        assert_eq!(runs(&[2, 3, 4], &[1, 1, 0], &[1, 2, 4]), vec![32..48]);
        assert_eq!(runs(&[], &[], &[]), vec![0..2]);
        assert_eq!(runs(&[5], &[1], &[2]), vec![2..6]);
    }
}
