//! One damaged file made anew beside its place, of equal copies of its parts.

use crate::fault::Result;
use crate::fault::memory::provide;
use crate::job::outcome::Repaired;
use crate::job::repair::copies::{Copies, Place};
use crate::job::repair::design::metas;
use crate::job::repair::frame::{Bare, write};
use crate::job::repair::parts::{CHUNK_BYTES, Part, gaps, is_sound, parts, steps};
use crate::job::verify::reader::Reader;
use crate::store::hidden::hidden;
use crate::store::io::{self, ReadFile, WriteFile};
use crate::store::manifest::FileRecord;
use crate::tensor::digest::{finish, residue, shift};
use std::path::{Path, PathBuf};

/// What the name of a file ends with that is made beside another.
const ENDING: &str = ".shardloom-repair";
/// What the name of a replaced file ends with that may hold parts of another one.
const KEPT: &str = ".shardloom-damaged";

/// What came of one damaged file.
pub(super) enum Mended {
    /// It isn't damaged, as this process sees it.
    Good,
    /// It stands complete beside its place, proved by its CRC.
    Ready(Ready),
    /// Of these tensors, or of the bytes around them ([`None`]), there is no good copy.
    Without(Vec<Option<String>>),
    /// It couldn't be written.
    Failed(String),
}

/// A file made anew, beside its place.
pub(super) struct Ready {
    /// Where.
    staged: PathBuf,
    /// What of it was damaged, and where it is from.
    pub(super) rows: Vec<Repaired>,
    /// What stands in its place may be newer than the manifest.
    pub(super) newer: bool,
}

impl Ready {
    /// Puts it in its place, in one step; with `keep` what stood there is kept beside it, and where is
    /// given. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`]; then nothing has changed.
    pub(super) fn place(&self, path: &Path, keep: bool) -> Result<Option<PathBuf>> {
        let stands = keep && io::size(path)?.is_some();
        let kept = stands.then(|| kept(path)).transpose()?;
        io::rename(&self.staged, path)?;
        path.parent().map_or(Ok(()), io::sync_directory)?;
        Ok(kept)
    }

    /// Removes it again. Local.
    pub(super) fn discard(&self) {
        discard(&self.staged);
    }
}

fn discard(staged: &Path) {
    if let Err(fault) = io::remove(staged) {
        tracing::warn!("{fault}");
    }
}

/// Mends files, one after the other.
pub(super) struct Mender<'m> {
    pub(super) copies: &'m Copies<'m>,
    pub(super) reader: Reader,
    buffer: Vec<u8>,
    /// Bytes that were read.
    pub(super) read: u64,
}

impl<'m> Mender<'m> {
    pub(super) fn new(copies: &'m Copies<'m>) -> Self {
        Mender {
            copies,
            reader: Reader::default(),
            buffer: Vec::new(),
            read: 0,
        }
    }

    /// Makes the file with this number anew, beside its place. Local.
    pub(super) fn mend(&mut self, number: usize) -> Mended {
        let Some(record) = self.copies.record(0, number) else {
            return Mended::Good;
        };
        let path = self.copies.path(0, number);
        let staged = beside(&path);
        let mended = self.left(&staged, record, number);
        let mended = mended.map_or_else(|| self.make(&path, &staged, record, number), Ok);
        let mut mended = mended.unwrap_or_else(|fault| Mended::Failed(fault.message));
        if let Mended::Ready(ready) = &mut mended {
            let made = ready.rows.iter().filter(|row| row.tensor.is_some());
            let most = made.count() * 2 > record.shards.len();
            ready.newer = most && is_sound(&path) && !self.is_known(&path);
        }
        if !matches!(mended, Mended::Ready(_)) {
            discard(&staged);
        }
        mended
    }

    /// What an interrupted repair has left, if it is complete.
    fn left(&mut self, staged: &Path, record: &FileRecord, number: usize) -> Option<Mended> {
        if !matches!(io::size(staged), Ok(Some(size)) if size == record.bytes) {
            return None;
        }
        let whole = self.proves(staged, record).ok()?;
        whole.then(|| {
            let manifest = self.copies.donors.first().map(|donor| donor.manifest);
            let parts = manifest.map_or(Vec::new(), |manifest| parts(manifest, record));
            let damaged = parts.iter().filter(|part| !self.own(number, part));
            let mut rows: Vec<Repaired> = damaged
                .map(|part| row(record, part.tensor, "an interrupted repair".into()))
                .collect();
            if rows.is_empty() {
                rows.push(row(record, None, "an interrupted repair".into()));
            }
            let staged = staged.to_path_buf();
            Mended::Ready(Ready {
                staged,
                rows,
                newer: false,
            })
        })
    }

    /// Whether the damaged file itself has this part in its place.
    fn own(&self, number: usize, part: &Part<'_>) -> bool {
        let places = self.copies.of(number, part);
        part.bytes() == 0
            || places
                .iter()
                .any(|place| self.copies.is_own(number, *place))
    }

    fn make(
        &mut self,
        path: &Path,
        staged: &Path,
        record: &FileRecord,
        number: usize,
    ) -> Result<Mended> {
        let Some(manifest) = self.copies.donors.first().map(|donor| donor.manifest) else {
            return Ok(Mended::Good);
        };
        let parts = parts(manifest, record);
        if let Some(parent) = staged.parent() {
            io::make_directory(parent)?;
        }
        io::remove(staged)?;
        let target = WriteFile::create(staged, record.bytes)?;
        let (mut whole, mut rows, mut missing) = (0, Vec::new(), Vec::new());
        for part in parts.iter().filter(|part| part.bytes() > 0) {
            let Some((contribution, from)) = self.filled(number, record, part, &target)? else {
                missing.push(part.tensor.map(str::to_owned));
                continue;
            };
            whole ^= contribution;
            rows.extend(from.map(|from| row(record, part.tensor, from)));
        }
        if !missing.is_empty() {
            return Ok(Mended::Without(missing));
        }
        let gaps = gaps(&parts, record.bytes);
        let bare = Bare {
            number,
            record,
            parts: &parts,
            gaps: &gaps,
            residue: whole,
            target: &target,
        };
        let Some((frame, from)) = bare.frame(self.copies) else {
            return Ok(Mended::Without(vec![None]));
        };
        let own = from.is_none();
        rows.extend(from.map(|from| row(record, None, from)));
        if own && rows.is_empty() {
            if io::size(path)? == Some(record.bytes) {
                return Ok(Mended::Good);
            }
            rows.push(row(record, None, record.path.clone()));
        }
        write(&target, &gaps, &frame)?;
        if io::size(path)?.is_some() {
            io::take_after(staged, path)?;
        }
        target.sync()?;
        if !self.proves(staged, record)? {
            return Ok(Mended::Failed(
                "what was written of it has another CRC".into(),
            ));
        }
        let staged = staged.to_path_buf();
        Ok(Mended::Ready(Ready {
            staged,
            rows,
            newer: false,
        }))
    }

    /// Whether a file is one of those that the manifest tells of, wherever it stands. Local: reads it.
    fn is_known(&mut self, path: &Path) -> bool {
        let Ok(file) = ReadFile::open(path) else {
            return false;
        };
        let bytes = file.size();
        let Ok(sum) = self.reader.residue(&file, 0..bytes) else {
            return false;
        };
        self.read += bytes;
        let donor = self.copies.donors.first();
        let mut records = donor.into_iter().flat_map(|donor| &donor.manifest.files);
        records.any(|record| record.bytes == bytes && finish(sum, bytes) == record.crc64.0)
    }

    /// Whether a file has the CRC of `record`. Local: reads it.
    fn proves(&mut self, path: &Path, record: &FileRecord) -> Result<bool> {
        let file = ReadFile::open(path)?;
        let sum = self.reader.residue(&file, 0..file.size())?;
        self.read += file.size();
        Ok(file.size() == record.bytes && finish(sum, record.bytes) == record.crc64.0)
    }

    /// Fills a part from the first good copy: its contribution to the file's residue, and where it is
    /// from. None if there is no good copy.
    fn fill(
        &mut self,
        number: usize,
        record: &FileRecord,
        part: &Part<'_>,
        target: &WriteFile,
    ) -> Result<Option<(u64, Place)>> {
        for place in self.copies.of(number, part) {
            if let Some(contribution) = self.copy(place, record, part, target)? {
                return Ok(Some((contribution, place)));
            }
        }
        Ok(None)
    }

    /// Fills a part, and gives its contribution and, if that isn't the file itself, where it is from; none if nothing
    /// tells it.
    ///
    /// # Errors
    /// If it can't be written.
    fn filled(
        &mut self,
        number: usize,
        record: &FileRecord,
        part: &Part<'_>,
        target: &WriteFile,
    ) -> Result<Option<(u64, Option<String>)>> {
        if let Some((contribution, place)) = self.fill(number, record, part, target)? {
            let own = self.copies.is_own(number, place);
            let from = (!own).then(|| self.copies.shown(place.donor, place.file));
            return Ok(Some((contribution, from)));
        }
        // A text may be what the names of the files beside it tell.
        let texts = match part.tensor {
            None => metas(self.copies, record),
            Some(_) => Vec::new(),
        };
        for text in texts
            .iter()
            .filter(|text| text.len() as u64 == record.bytes)
        {
            let own = residue(text);
            if finish(own, record.bytes) == part.crc {
                target.write_at(text, 0)?;
                return Ok(Some((own, Some("the files' names".into()))));
            }
        }
        Ok(None)
    }

    /// Copies a part; none if the copy is no good after all.
    ///
    /// # Errors
    /// If it can't be written.
    fn copy(
        &mut self,
        place: Place,
        record: &FileRecord,
        part: &Part<'_>,
        target: &WriteFile,
    ) -> Result<Option<u64>> {
        let Some((file, from)) = self.copies.open(place) else {
            return Ok(None);
        };
        let (mut contribution, mut sum, mut length) = (0, 0, 0);
        for (source, begin, bytes) in steps(&from, &part.ranges) {
            let count = usize::try_from(bytes).unwrap_or(CHUNK_BYTES);
            provide(&mut self.buffer, count)?;
            let chunk = &mut self.buffer[..count];
            if file.read_at(chunk, source).is_err() {
                return Ok(None);
            }
            self.read += bytes;
            target.write_at(chunk, begin)?;
            let own = residue(chunk);
            sum = shift(sum, bytes) ^ own;
            contribution ^= shift(own, record.bytes.saturating_sub(begin + bytes));
            length += bytes;
        }
        let right = length == part.bytes() && finish(sum, length) == part.crc;
        Ok(right.then_some(contribution))
    }
}

fn row(record: &FileRecord, tensor: Option<&str>, from: String) -> Repaired {
    Repaired {
        file: record.path.clone(),
        tensor: tensor.map(str::to_owned),
        from,
    }
}

/// Gives a damaged file a second name that isn't taken yet: one that was kept before stays.
fn kept(path: &Path) -> Result<PathBuf> {
    for number in 0_u32.. {
        let kept = match number {
            0 => hidden(path, KEPT),
            _ => hidden(path, &format!("{KEPT}-{number}")),
        };
        if io::size(&kept)?.is_none() {
            io::link(path, &kept)?;
            return Ok(kept);
        }
    }
    Ok(hidden(path, KEPT))
}

/// Where a file is made anew: hidden, in the same directory.
fn beside(path: &Path) -> PathBuf {
    hidden(path, ENDING)
}
