//! Bytes around a file's tensors, laid out as when the file was first written, where no file of equal
//! structure has them: dtypes and shapes are those of the same tensors in other files' headers.

use crate::catalog::FileSchema;
use crate::job::repair::copies::{Copies, Donor};
use crate::job::repair::parts::Part;
use crate::source::meta::{META, META_BYTES_MAX, Meta, Name};
use crate::store::Format;
use crate::store::ckpt::TRAILER_BYTES;
use crate::store::formats::RELEASE;
use crate::store::formats::checkpoint2::TRACKER;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, structure};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Files of a structure whose headers are read, at most.
const TRIES_MAX: usize = 8;

/// What a header says of a tensor.
type Known<'a> = HashMap<(&'a str, u64), (Dtype, Shape)>;

/// What the `meta.json` of a rank may say, by the names of that rank's files, and what names the last iteration: of
/// another file there is none. Local.
pub(super) fn metas(copies: &Copies<'_>, record: &FileRecord) -> Vec<Vec<u8>> {
    let Some(donor) = copies.donors.first() else {
        return Vec::new();
    };
    let files = donor.manifest.files.iter();
    // One that reads well isn't damaged: a trainer that has gone on has written it.
    let stands = ReadFile::open(&donor.directory.join(&record.path));
    let stands = stands
        .and_then(|file| file.read_all(META_BYTES_MAX))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&stands);
    if Meta::parse(&stands).is_some() || is_tracked(text.trim()) {
        return Vec::new();
    }
    if record.path == TRACKER {
        let rooms = files.filter_map(|file| file.path.split_once('/'));
        let numbers = rooms.filter_map(|(room, _)| room.rsplit_once('_')?.1.parse::<u64>().ok());
        let numbers = numbers.map(|number| number.to_string());
        let released = std::iter::once(RELEASE.to_owned());
        return released.chain(numbers).map(String::into_bytes).collect();
    }
    let Some(room) = record.path.strip_suffix(META) else {
        return Vec::new();
    };
    let own = files.filter_map(|file| file.path.strip_prefix(room));
    let metas = own.filter_map(|file| {
        let (name, _) = Name::parse(file)?;
        let meta = Meta {
            last_ckpt_file: file.to_owned(),
            ..Meta::of(&name, 0)
        };
        // As a trainer writes it, and as a job does.
        let sorted = serde_json::to_value(&meta).ok()?.to_string();
        Some([meta.bytes().ok()?, sorted.into_bytes()])
    });
    metas.flatten().collect()
}

/// Whether a tracker says this.
fn is_tracked(text: &str) -> bool {
    text == RELEASE || text.parse::<u64>().is_ok()
}

/// What may lie at `gaps` of a file, likely ones first. Local.
pub(super) fn design(
    copies: &Copies<'_>,
    record: &FileRecord,
    parts: &[Part<'_>],
    gaps: &[(u64, u64)],
) -> Vec<Vec<Vec<u8>>> {
    let mut known: Known<'_> = HashMap::new();
    let mut texts: Vec<BTreeMap<String, String>> = Vec::new();
    for donor in &copies.donors {
        learn(donor, parts, &mut known, &mut texts);
    }
    if let Some(donor) = copies.donors.first() {
        for part in parts {
            from_whole(donor, part, &mut known);
        }
    }
    for part in parts {
        let cut = part.tensor.zip(copies.told);
        let cut = cut.and_then(|(name, told)| Some((name, told.get(&record.path, name)?)));
        if let Some((name, cut)) = cut {
            let value = (cut.dtype, cut.region.shape.clone());
            known.entry((name, part.bytes())).or_insert(value);
        }
    }
    let list = parts.iter().map(|part| {
        let name = part.tensor?;
        let (dtype, shape) = known.get(&(name, part.bytes()))?;
        Some((Arc::from(name), *dtype, shape.clone()))
    });
    let Some(list) = list.collect::<Option<Vec<(Arc<str>, Dtype, Shape)>>>() else {
        return Vec::new();
    };
    let Some(format) = Format::of_part(&record.path) else {
        return Vec::new();
    };
    let pt = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    for text in [format.marks(), pt, BTreeMap::new()] {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let designed = texts.iter().filter_map(|text| {
        let schema = format.design(&list, text).ok()?;
        let placed = copies.donors.first()?.manifest.placed(record);
        let fits = schema.size == record.bytes || schema.size + TRAILER_BYTES == record.bytes;
        if fits && structure(&schema) == placed {
            cut(&schema, gaps)
        } else {
            None
        }
    });
    designed.collect()
}

/// Reads headers of a donor until all tensors of `parts` are known, or no more can be.
fn learn<'a>(
    donor: &Donor<'_>,
    parts: &[Part<'a>],
    known: &mut Known<'a>,
    texts: &mut Vec<BTreeMap<String, String>>,
) {
    let wanted: HashMap<(&str, u64), &'a str> = parts
        .iter()
        .filter_map(|part| Some(((part.tensor?, part.bytes()), part.tensor?)))
        .collect();
    let mut tries: HashMap<usize, usize> = HashMap::new();
    for record in &donor.manifest.files {
        let Some(structure) = record.structure else {
            continue;
        };
        let tried = tries.entry(structure).or_default();
        if *tried >= TRIES_MAX {
            continue;
        }
        let names = donor.manifest.placed(record).iter();
        let news = names.into_iter().any(|(name, ranges)| {
            let key = (name.as_str(), super::parts::length(ranges));
            wanted.contains_key(&key) && !known.contains_key(&key)
        });
        if !news && !texts.is_empty() {
            continue;
        }
        *tried += 1;
        let opened = ReadFile::open(&donor.directory.join(&record.path));
        let schema = opened.and_then(|file| Format::recognise(&file)?.read(&file));
        let Ok(schema) = schema else { continue };
        for entry in &schema.entries {
            let bytes = entry.bytes();
            if let Some(name) = wanted.get(&(&*entry.name, bytes)) {
                let value = (entry.dtype, entry.shape.clone());
                known.entry((*name, bytes)).or_insert(value);
            }
        }
        if !texts.contains(&schema.metadata) {
            texts.push(schema.metadata);
        }
    }
}

/// A shard that is a whole tensor has what the manifest says of the tensor.
fn from_whole<'a>(donor: &Donor<'_>, part: &Part<'a>, known: &mut Known<'a>) {
    let Some(name) = part.tensor else { return };
    let Some(tensor) = donor.manifest.tensors.get(name) else {
        return;
    };
    let Ok(dtype) = Dtype::from_safetensors(&tensor.dtype) else {
        return;
    };
    let shape = Shape(tensor.shape.clone());
    if shape.bytes(dtype).is_ok_and(|bytes| bytes == part.bytes()) {
        known.entry((name, part.bytes())).or_insert((dtype, shape));
    }
}

/// The bytes of a designed file at `gaps`; none if it has a tensor there. A checksum that is to follow
/// is left zero.
fn cut(schema: &FileSchema, gaps: &[(u64, u64)]) -> Option<Vec<Vec<u8>>> {
    let empty = |(begin, end): &(u64, u64)| Some(vec![0; usize::try_from(end - begin).ok()?]);
    let mut found: Vec<Vec<u8>> = gaps.iter().map(empty).collect::<Option<_>>()?;
    let mut covered = 0;
    for (offset, bytes) in &schema.literals {
        let after = gaps.partition_point(|(begin, _)| begin <= offset);
        let Some(at) = after.checked_sub(1) else {
            continue;
        };
        let (gap, begin) = (found.get_mut(at)?, gaps.get(at)?.0);
        let from = usize::try_from(offset - begin).ok()?;
        if let Some(room) = gap.get_mut(from..from.checked_add(bytes.len())?) {
            room.copy_from_slice(bytes);
            covered += bytes.len() as u64;
        }
    }
    let wanted: u64 = gaps
        .iter()
        .map(|(begin, end)| end.min(&schema.size).saturating_sub(*begin))
        .sum();
    (covered == wanted).then_some(found)
}
