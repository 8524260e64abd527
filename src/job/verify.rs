//! verify: files against the manifest that was written with them, and two checkpoints by their
//! tensors' digests.

use crate::exchange::all_gather;
use crate::exchange::{Topology, World, agree, decode, encode, exchange_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::{BadFile, Outcome};
use crate::job::seen::{missing, name_host, sights, unlisted};
use crate::job::tally;
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::manifest::{self, FileRecord, Manifest, Placed, structure};
use crate::tensor::digest::{Joiner, finish, residue, residue_of_crc, shift};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes read at once.
const CHUNK_BYTES: usize = 4 << 20;

/// What to verify.
#[derive(Clone, Debug)]
pub struct Verification {
    /// A directory with a manifest.
    pub directory: PathBuf,
    /// Another, which must have the same tensors, in whatever layout.
    pub against: Option<PathBuf>,
}

/// Verifies a directory. Collective.
///
/// # Errors
/// The same on every process, if there is no manifest; what is found wrong is no error.
pub fn verify(world: &World, verification: &Verification) -> Result<Outcome> {
    let start = std::time::Instant::now();
    let topology = Topology::discover(world)?;
    let mut outcome = tally::outcome(world, &topology, "verify");
    let (checked, bad) = match &verification.against {
        Some(against) => compare(world, &topology, &verification.directory, against)?,
        None => {
            let (files, read, bad) = check_files(world, &topology, &verification.directory)?;
            outcome.bytes.read = read;
            (files, bad)
        }
    };
    outcome.ok = bad.is_empty();
    outcome.checked = Some(checked);
    outcome.bad = Some(bad);
    outcome.seconds.total = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// What a node finds at a directory.
enum Found {
    Nothing,
    Damaged(String),
    Manifest(Box<Manifest>),
}

/// The manifest that this process's node sees at `directory`. Local.
fn look(directory: &Path) -> Result<Found> {
    match Manifest::read(directory) {
        Ok(None) => Ok(Found::Nothing),
        Ok(Some(manifest)) => Ok(Found::Manifest(Box::new(manifest))),
        Err(fault) if fault.kind == Kind::Corrupt => Ok(Found::Damaged(fault.message)),
        Err(fault) => Err(fault),
    }
}

fn no_manifest(directory: &Path) -> Fault {
    Fault::new(Kind::Unsupported, "has no manifest to verify it by")
        .file(directory.join(manifest::NAME).display().to_string())
        .hint("it is in what this program has written; `diff` compares any two checkpoints")
}

fn damaged(reason: String) -> BadFile {
    BadFile {
        file: manifest::NAME.into(),
        tensor: None,
        reason,
    }
}

/// Compares two checkpoints by their manifests alone. Collective.
fn compare(
    world: &World,
    topology: &Topology,
    directory: &Path,
    against: &Path,
) -> Result<(u64, Vec<BadFile>)> {
    type Digests = BTreeMap<String, (String, Vec<u64>, u64)>;
    let digests = |directory: &Path| -> Result<Option<std::result::Result<Digests, String>>> {
        let leads = topology.leads(world.process());
        let found = if leads {
            look(directory)
        } else {
            Ok(Found::Nothing)
        };
        type Seen = Option<std::result::Result<Digests, String>>;
        let mine: Result<Seen> = found.map(|found| match found {
            Found::Nothing => None,
            Found::Damaged(reason) => Some(Err(reason)),
            Found::Manifest(manifest) => {
                let tensors = manifest.tensors.into_iter();
                let digests = tensors.map(|(name, t)| (name, (t.dtype, t.shape, t.digest.0)));
                Some(Ok(digests.collect()))
            }
        });
        let mine = agree(world, mine)?;
        let sees = all_gather(world, &mine.is_some())?;
        let first = sees.iter().position(|sees| *sees);
        let first = agree(world, first.ok_or_else(|| no_manifest(directory)))?;
        let first = u32::try_from(first).unwrap_or_default();
        let bytes = if world.process() == first {
            encode(&mine)
        } else {
            Ok(Vec::new())
        };
        let bytes = crate::exchange::broadcast_bytes(world, first, agree(world, bytes)?)?;
        agree(world, decode(&bytes))
    };
    let (ours, theirs) = (digests(directory)?, digests(against)?);
    let (ours, theirs) = match (ours, theirs) {
        (Some(Ok(ours)), Some(Ok(theirs))) => (ours, theirs),
        (Some(Err(reason)), _) | (_, Some(Err(reason))) => return Ok((0, vec![damaged(reason)])),
        _ => return Err(no_manifest(directory)),
    };
    let other = against.display();
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let checked = names.len() as u64;
    let wrong = names.into_iter().filter_map(|name| {
        let reason = match (ours.get(name), theirs.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => return None,
            (Some(_), None) => format!("is not in {other}"),
            (None, _) => format!("is only in {other}"),
            (Some(ours), Some(theirs)) if ours.0 != theirs.0 => {
                format!("is {} here and {} in {other}", ours.0, theirs.0)
            }
            (Some(ours), Some(theirs)) if ours.1 != theirs.1 => {
                format!("has shape {:?} here and {:?} in {other}", ours.1, theirs.1)
            }
            _ => format!("has other bytes than in {other}"),
        };
        Some(BadFile {
            file: manifest::NAME.into(),
            tensor: Some(name.clone()),
            reason,
        })
    });
    Ok((checked, wrong.collect()))
}

/// The processes that see the same manifest share the work by bytes. Collective.
fn check_files(
    world: &World,
    topology: &Topology,
    directory: &Path,
) -> Result<(u64, u64, Vec<BadFile>)> {
    let found = agree(world, look(directory))?;
    let seen = match &found {
        Found::Nothing => Ok(None),
        Found::Damaged(reason) => Err(reason.as_str()),
        Found::Manifest(manifest) => Ok(Some(manifest.as_ref())),
    };
    let seen = sights(world, directory, seen)?;
    if seen.iter().all(Option::is_none) {
        return Err(no_manifest(directory));
    }
    // A manifest is shared by all nodes that see the same file; each copy of it has files of its own.
    let process = world.process();
    let mine = seen.get(process as usize).unwrap_or(&None);
    let members: Vec<u32> = (0u32..)
        .zip(&seen)
        .filter(|(_, other)| *other == mine)
        .map(|(process, _)| process)
        .collect();
    let head = members.first().copied().unwrap_or(process);
    let index = members.iter().position(|m| *m == process).unwrap_or(0);
    let empty = Manifest::default();
    let (manifest, mut bad) = match &found {
        Found::Manifest(manifest) => (manifest.as_ref(), Vec::new()),
        Found::Damaged(reason) if head == process => (&empty, vec![damaged(reason.clone())]),
        Found::Damaged(_) | Found::Nothing => (&empty, Vec::new()),
    };
    let heads = head == process && matches!(found, Found::Manifest(_));
    let strange = heads.then(|| unlisted(directory, manifest));
    bad.extend(agree(world, strange.unwrap_or_else(|| Ok(Vec::new())))?);
    let share = Share {
        index: index as u64,
        of: members.len() as u64,
    };
    let (sums, read, wrong) = share.sums(directory, manifest);
    let messages = exchange_bytes(world, vec![(head, agree(world, encode(&(sums, wrong)))?)])?;
    let suspects = (head == process).then(|| suspects(manifest, &messages));
    let suspects = agree(world, suspects.unwrap_or_else(|| Ok(Vec::new())))?;
    let suspects = all_gather(world, &suspects)?;
    let mut own_read = read;
    let suspects = suspects.get(head as usize).map_or(&[][..], Vec::as_slice);
    for (turn, number) in suspects.iter().enumerate() {
        if turn % members.len().max(1) == index
            && let Some(file) = manifest.files.get(*number)
        {
            bad.extend(find_bad(directory, manifest, file));
            own_read += file.bytes;
        }
    }
    name_host(topology, process, &seen, &mut bad);
    bad.extend(missing(world, topology, heads.then_some(manifest))?);
    let checked = if head == process {
        manifest.files.len() as u64
    } else {
        0
    };
    let checked = tally::sum(world, checked)?;
    let read = tally::sum(world, own_read)?;
    let mut all: Vec<BadFile> = all_gather(world, &bad)?.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    Ok((checked, read, all))
}

/// One of several equal parts of a manifest's files, by bytes.
struct Share {
    index: u64,
    of: u64,
}

/// Residues by file number.
type Sums = BTreeMap<usize, u64>;

impl Share {
    /// What this share contributes to the residue of each file; and the files that can't be as they
    /// should. Local: what can't be read is no error here.
    fn sums(&self, directory: &Path, manifest: &Manifest) -> (Sums, u64, Vec<usize>) {
        let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let bound = |index: u64| {
            let bound = u128::from(total) * u128::from(index) / u128::from(self.of.max(1));
            u64::try_from(bound).unwrap_or(u64::MAX)
        };
        let (begin, end) = (bound(self.index), bound(self.index + 1));
        let mut reader = Reader::default();
        let mut sums = Sums::new();
        let mut wrong = Vec::new();
        let mut read = 0;
        let mut before = 0;
        for (number, record) in manifest.files.iter().enumerate() {
            let after = before + record.bytes;
            let (from, to) = (
                begin.max(before) - before,
                end.min(after).max(before) - before,
            );
            // Each file's beginning is somebody's; who has it looks at the header, too.
            let starts = (begin..end).contains(&before)
                || (record.bytes == 0 && before == total && self.index == 0);
            if from < to || starts {
                let part = reader.part(directory, manifest, record, starts, from..to.max(from));
                match part {
                    Some(part) => {
                        sums.insert(number, part);
                        read += to.saturating_sub(from);
                    }
                    None => wrong.push(number),
                }
            }
            before = after;
        }
        (sums, read, wrong)
    }
}

/// The files that are not as their manifest says.
fn suspects(manifest: &Manifest, messages: &[(u32, Vec<u8>)]) -> Result<Vec<usize>> {
    let mut sums = Sums::new();
    let mut suspects = std::collections::BTreeSet::new();
    for (_, message) in messages {
        let (parts, wrong): (Sums, Vec<usize>) = decode(message)?;
        for (number, part) in parts {
            *sums.entry(number).or_default() ^= part;
        }
        suspects.extend(wrong);
    }
    for (number, file) in manifest.files.iter().enumerate() {
        let expected = residue_of_crc(file.crc64.0, file.bytes);
        if sums.get(&number).copied().unwrap_or(0) != expected {
            suspects.insert(number);
        }
    }
    Ok(suspects.into_iter().collect())
}

/// Reads files in chunks.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    joiner: Joiner,
}

impl Reader {
    /// The contribution of a range of a file; none if it can't be as it should.
    fn part(
        &mut self,
        directory: &Path,
        manifest: &Manifest,
        record: &FileRecord,
        header: bool,
        range: std::ops::Range<u64>,
    ) -> Option<u64> {
        let file = ReadFile::open(&directory.join(&record.path)).ok()?;
        if file.size() != record.bytes {
            return None;
        }
        if header {
            check_header(&file, record, manifest.placed(record)).ok()?;
        }
        let end = range.end;
        let part = self.residue(&file, range).ok()?;
        Some(shift(part, record.bytes - end))
    }

    /// The residue of a range of a file.
    fn residue(&mut self, file: &ReadFile, range: std::ops::Range<u64>) -> Result<u64> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let chunk = length.min(CHUNK_BYTES);
        if self.buffer.len() < chunk {
            self.buffer.resize(chunk, 0);
        }
        let (mut at, mut sum) = (range.start, 0);
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let bytes = &mut self.buffer[..left.min(CHUNK_BYTES)];
            file.read_at(bytes, at)?;
            sum = self.joiner.shift(sum, bytes.len() as u64) ^ residue(bytes);
            at += bytes.len() as u64;
        }
        Ok(sum)
    }
}

/// Whether a file's own header says what the manifest says. Local.
fn check_header(file: &ReadFile, record: &FileRecord, placed: &[Placed]) -> Result<()> {
    if record.structure.is_none() {
        return Ok(());
    }
    let mut found = structure(&Format::recognise(file)?.read(file)?);
    let mut placed = placed.to_vec();
    found.sort();
    placed.sort();
    if found == placed {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Corrupt,
        "the header has other tensors than were written",
    ))
}

fn bad(record: &FileRecord, tensor: Option<&str>, reason: String) -> BadFile {
    BadFile {
        file: record.path.clone(),
        tensor: tensor.map(str::to_owned),
        reason,
    }
}

/// Which of a file's tensors that are `wanted` are not as they were written. Local.
pub(super) fn bad_shards(
    directory: &Path,
    manifest: &Manifest,
    record: &FileRecord,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<BadFile> {
    let placed = manifest.placed(record);
    if !placed.iter().any(|(name, _)| wanted(name)) {
        return Vec::new();
    }
    let file = match ReadFile::open(&directory.join(&record.path)) {
        Ok(file) => file,
        Err(fault) => return vec![bad(record, None, fault.message)],
    };
    let mut found = Vec::new();
    let mut reader = Reader::default();
    let shards = placed.iter().zip(&record.shards);
    for ((name, ranges), crc) in shards.filter(|((name, _), _)| wanted(name)) {
        let (mut sum, mut length) = (0, 0);
        let mut reason = None;
        for (begin, end) in ranges {
            if *end > file.size() {
                reason = Some(format!(
                    "the file ends at byte {}, the tensor at {end}",
                    file.size()
                ));
                break;
            }
            match reader.residue(&file, *begin..*end) {
                Ok(part) => sum = shift(sum, end - begin) ^ part,
                Err(fault) => {
                    reason = Some(fault.message);
                    break;
                }
            }
            length += end - begin;
        }
        if reason.is_none() && finish(sum, length) != crc.0 {
            reason = Some("its bytes have another CRC than when they were written".into());
        }
        if let Some(reason) = reason {
            found.push(bad(record, Some(name), reason));
        }
    }
    found
}

/// What is wrong with a file, tensor by tensor. Local.
#[must_use]
pub fn find_bad(directory: &Path, manifest: &Manifest, record: &FileRecord) -> Vec<BadFile> {
    let mut found = bad_shards(directory, manifest, record, &|_| true);
    let bad = |tensor: Option<&str>, reason: String| bad(record, tensor, reason);
    let file = match ReadFile::open(&directory.join(&record.path)) {
        Ok(file) => file,
        Err(fault) => return vec![bad(None, fault.message)],
    };
    let mut reader = Reader::default();
    let placed = manifest.placed(record);
    if file.size() != record.bytes {
        let reason = format!(
            "has {} bytes, was written with {}",
            file.size(),
            record.bytes
        );
        found.push(bad(None, reason));
    } else if let Err(fault) = check_header(&file, record, placed) {
        found.push(bad(
            None,
            format!("the header is damaged: {}", fault.message),
        ));
    } else if found.is_empty() {
        match reader.residue(&file, 0..file.size()) {
            Ok(sum) if finish(sum, record.bytes) == record.crc64.0 => {}
            Ok(_) => {
                let reason = "bytes outside of its tensors are not as they were written";
                found.push(bad(None, reason.into()));
            }
            Err(fault) => found.push(bad(None, fault.message)),
        }
    }
    found
}
