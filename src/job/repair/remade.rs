//! A manifest that is damaged or gone, made anew of the same checkpoint in another layout: what that is in this
//! layout says what each shard should be, and the files say how they lie.

use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::job::repair::parts::{gaps, length, parts, steps};
use crate::job::verify::reader::Reader;
use crate::store::Format;
use crate::store::formats::COUNT_NAMES;
use crate::store::io::{self, ReadFile};
use crate::store::manifest::{FileRecord, Hex, Manifest, NAME, Placed, structure};
use crate::store::rank_dir::rank_of;
use crate::tensor::digest::{finish, residue_of_crc, shift};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The checkpoint in the layout of the damaged directory, as it was written beside it.
pub(super) struct Model<'m> {
    /// Where.
    pub(super) directory: &'m Path,
    /// What it holds.
    pub(super) manifest: &'m Manifest,
}

/// A shard as it should be: the record of its file, and its position there; none for a count of the job's that
/// the other checkpoint doesn't keep, which is as it stands.
type Known<'m> = Option<Due<'m>>;

/// The record of a shard's file, and its position there.
#[derive(Clone, Copy)]
struct Due<'m> {
    file: &'m FileRecord,
    position: usize,
}

/// The manifest of the files of `directory`, each as it should be by `model`. Local.
///
/// # Errors
/// [`Kind::Corrupt`] naming a file of which it can't be told; [`Kind::Io`].
pub(super) fn remade(directory: &Path, model: &Model<'_>) -> Result<Manifest> {
    let mut own: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for path in io::list_files(directory)? {
        let hidden = path.split('/').any(|part| part.starts_with('.'));
        if !hidden && Format::of(&path).is_some() {
            own.entry(rank(&path)).or_default().push(path);
        }
    }
    let mut due: BTreeMap<u32, Vec<&FileRecord>> = BTreeMap::new();
    let weights = model.manifest.files.iter();
    for file in weights.filter(|file| file.structure.is_some()) {
        due.entry(rank(&file.path)).or_default().push(file);
    }
    let (mut structures, mut files) = (Vec::new(), Vec::new());
    let pattern = own.iter().find_map(|(rank, paths)| match &paths[..] {
        [one] => Some((*rank, one.clone())),
        _ => None,
    });
    let mut reader = Reader::default();
    for (rank, due) in &due {
        let paths = own.remove(rank).unwrap_or_default();
        let of_rank = OfRank {
            directory,
            model,
            due,
        };
        for (record, placed) in of_rank.records(*rank, &paths, pattern.as_ref(), &mut reader)? {
            let mut record = record;
            record.structure = Some(structures.len());
            structures.push(placed);
            files.push(record);
        }
    }
    if let Some(path) = own.values().flatten().next() {
        let message = "is of a rank that the other checkpoint hasn't in this layout";
        return Err(Fault::new(Kind::Corrupt, message).file(path.as_str()));
    }
    let mut made = Manifest {
        files: Vec::new(),
        structures: Vec::new(),
        carried: Vec::new(),
        ..model.manifest.clone()
    };
    for file in model
        .manifest
        .files
        .iter()
        .filter(|file| file.structure.is_none())
    {
        files.extend(note(directory, file, &mut reader)?);
    }
    made.add(&structures, files);
    Ok(made)
}

/// The rank of a file's directory; 0 of full weights.
fn rank(path: &str) -> u32 {
    let first = path.split_once('/').map(|(first, _)| first);
    first.and_then(rank_of).unwrap_or(0)
}

/// The files of a rank.
struct OfRank<'a> {
    directory: &'a Path,
    model: &'a Model<'a>,
    due: &'a [&'a FileRecord],
}

impl OfRank<'_> {
    /// The records of the rank's files, with their structures. Local.
    fn records(
        &self,
        rank: u32,
        paths: &[String],
        pattern: Option<&(u32, String)>,
        reader: &mut Reader,
    ) -> Result<Vec<(FileRecord, Vec<Placed>)>> {
        let mut found = Vec::new();
        let mut unread = Vec::new();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for path in paths {
            match self.as_it_lies(path, reader)? {
                Some((record, placed)) => {
                    names.extend(placed.iter().map(|(name, _)| name.clone()));
                    found.push((record, placed));
                }
                None => unread.push(path.clone()),
            }
        }
        let all = self
            .due
            .iter()
            .flat_map(|file| self.model.manifest.placed(file));
        let lacking = all.filter(|(name, _)| !names.contains(name)).count();
        if unread.is_empty() && lacking == 0 {
            return Ok(found);
        }
        // One file that is lost, or whose header is, is written anew as a whole.
        let [due] = self.due else {
            return Err(untold(unread.first().or(paths.first()), lacking));
        };
        let path = match (&unread[..], &found[..], pattern) {
            ([path], [], _) => path.clone(),
            ([], [], Some((other, path))) => renamed(path, *other, rank),
            ([], [], None) => due.path.clone(),
            _ => return Err(untold(unread.first().or(paths.first()), lacking)),
        };
        if Format::of(&path).map(Format::name) != Format::of(&due.path).map(Format::name) {
            return Err(untold(Some(&path), lacking));
        }
        let placed = self.model.manifest.placed(due).to_vec();
        Ok(vec![(
            FileRecord {
                path,
                ..(*due).clone()
            },
            placed,
        )])
    }

    /// The record of a file whose header tells where its tensors lie, with the bytes that these should be; none
    /// if it isn't of these tensors. Local.
    fn as_it_lies(
        &self,
        path: &str,
        reader: &mut Reader,
    ) -> Result<Option<(FileRecord, Vec<Placed>)>> {
        let file = match ReadFile::open(&self.directory.join(path)) {
            Ok(file) => file,
            Err(fault) if fault.kind == Kind::Io => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let schema = Format::recognise(&file).and_then(|format| format.read(&file));
        let Ok(schema) = schema else { return Ok(None) };
        let known = schema.entries.iter().map(|entry| self.known(entry));
        let Some(dues) = known.collect::<Option<Vec<Known<'_>>>>() else {
            return Ok(None);
        };
        if dues.iter().all(Option::is_none) || !self.alike(&schema, &dues)? {
            return Ok(None);
        }
        let placed = structure(&schema);
        let mut shards = Vec::new();
        for (entry, due) in schema.entries.iter().zip(&dues) {
            shards.push(match due {
                None => Hex(reader.crc(&file, entry)?),
                Some(due) => match due.file.shards.get(due.position) {
                    Some(shard) => *shard,
                    None => return Ok(None),
                },
            });
        }
        let mut record = FileRecord {
            path: path.to_owned(),
            bytes: file.size(),
            crc64: Hex(0),
            structure: Some(0),
            shards,
        };
        let told = Manifest {
            structures: vec![placed.clone()],
            ..Manifest::default()
        };
        let own = parts(&told, &record);
        let mut whole = 0;
        for (part, due) in own.iter().zip(&dues) {
            whole ^= self.contribution(&part.ranges, part.crc, due, record.bytes, reader)?;
        }
        for (begin, end) in gaps(&own, record.bytes) {
            whole ^= shift(reader.residue(&file, begin..end)?, record.bytes - end);
        }
        record.crc64 = Hex(finish(whole, record.bytes));
        Ok(Some((record, placed)))
    }

    /// Where the shard of `entry` is as it should be, if that is known; none if it is no tensor of the rank's.
    fn known(&self, entry: &Entry) -> Option<Known<'_>> {
        let due = self.due(&entry.name);
        let counts = due.is_none() && COUNT_NAMES.contains(&&*entry.name);
        (due.is_some() || counts).then_some(due)
    }

    /// Where the tensor `name` of the rank is as it should be.
    fn due(&self, name: &str) -> Option<Due<'_>> {
        self.due.iter().find_map(|file| {
            let placed = self.model.manifest.placed(file).iter();
            let position = placed.into_iter().position(|(other, _)| other == name)?;
            Some(Due { file, position })
        })
    }

    /// Whether the tensors of a header are those that should be, by type and shape. Local.
    fn alike(&self, schema: &FileSchema, dues: &[Known<'_>]) -> Result<bool> {
        let mut known: HashMap<&str, FileSchema> = HashMap::new();
        for due in dues.iter().flatten() {
            if !known.contains_key(&*due.file.path) {
                let file = ReadFile::open(&self.model.directory.join(&due.file.path))?;
                let schema = Format::recognise(&file)?.read(&file)?;
                known.insert(&due.file.path, schema);
            }
        }
        Ok(schema.entries.iter().zip(dues).all(|(entry, due)| {
            let Some(due) = due else { return true };
            let other = known
                .get(&*due.file.path)
                .and_then(|schema| schema.get(&entry.name));
            other.is_some_and(|other| (other.dtype, &other.shape) == (entry.dtype, &entry.shape))
        }))
    }

    /// What a shard of this CRC at `ranges` of a file of so many bytes contributes to that file's residue. Local.
    fn contribution(
        &self,
        ranges: &[(u64, u64)],
        crc: u64,
        due: &Known<'_>,
        bytes: u64,
        reader: &mut Reader,
    ) -> Result<u64> {
        if let [(begin, end)] = ranges {
            return Ok(shift(residue_of_crc(crc, end - begin), bytes - end));
        }
        let Some(due) = due else { return Ok(0) };
        let placed = self.model.manifest.placed(due.file);
        let Some((_, from)) = placed
            .get(due.position)
            .filter(|(_, from)| length(from) == length(ranges))
        else {
            return Ok(0);
        };
        let file = ReadFile::open(&self.model.directory.join(&due.file.path))?;
        let mut sum = 0;
        for (source, begin, count) in steps(from, ranges) {
            let part = reader.residue(&file, source..source + count)?;
            sum ^= shift(part, bytes - begin - count);
        }
        Ok(sum)
    }
}

/// The fault of a file that can't be told.
fn untold(path: Option<&String>, lacking: usize) -> Fault {
    let message = match lacking {
        0 => "has other tensors than the other checkpoint in this layout".to_owned(),
        _ => format!(
            "of it, or of its directory's other files, {} missing, and it can't be told which file had them",
            match lacking {
                1 => "1 tensor is".to_owned(),
                more => format!("{more} tensors are"),
            }
        ),
    };
    let fault = Fault::new(Kind::Corrupt, message);
    match path {
        Some(path) => fault.file(path.as_str()),
        None => fault,
    }
}

/// What a file of rank `to` is called where one of rank `from` is called `path`.
fn renamed(path: &str, from: u32, to: u32) -> String {
    let (old, new) = (format!("rank_{from}"), format!("rank_{to}"));
    let mut made = String::new();
    let mut rest = path;
    while let Some(at) = rest.find(&old) {
        let after = &rest[at + old.len()..];
        let whole = !after.starts_with(|c: char| c.is_ascii_digit());
        made.push_str(&rest[..at]);
        made.push_str(if whole { &new } else { &old });
        rest = after;
    }
    made.push_str(rest);
    let Some((stem, ending)) = made.rsplit_once('.') else {
        return made;
    };
    // As {prefix}{rank}.safetensors.
    match stem.strip_suffix(&from.to_string()) {
        Some(begin) if !begin.ends_with(|c: char| c.is_ascii_digit() || "_-/".contains(c)) => {
            format!("{begin}{to}.{ending}")
        }
        _ => made,
    }
}

/// The record of a file without tensors that the other has, too: as it stands here, if it does. Local.
fn note(directory: &Path, due: &FileRecord, reader: &mut Reader) -> Result<Option<FileRecord>> {
    let path = directory.join(&due.path);
    if due.path == NAME || io::size(&path)?.is_none() {
        return Ok(None);
    }
    let file = ReadFile::open(&path)?;
    let crc = finish(reader.residue(&file, 0..file.size())?, file.size());
    Ok(Some(FileRecord {
        bytes: file.size(),
        crc64: Hex(crc),
        ..due.clone()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_for_its_rank() {
        for (path, from, to, made) in [
            (
                "rank_0/net0.safetensors",
                0,
                12,
                "rank_12/net12.safetensors",
            ),
            (
                "rank_1/m_rank_1-10_1.ckpt",
                1,
                2,
                "rank_2/m_rank_2-10_1.ckpt",
            ),
            ("rank_1/m_rank_1-1_1.ckpt", 1, 3, "rank_3/m_rank_3-1_1.ckpt"),
            ("rank_1/net.safetensors", 1, 3, "rank_3/net.safetensors"),
            ("rank_1/net11.safetensors", 1, 3, "rank_3/net11.safetensors"),
        ] {
            assert_eq!(renamed(path, from, to), made);
        }
    }
}
