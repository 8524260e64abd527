//! What is done: the residues of all that was written, and a journal of it, so that an interrupted
//! run can be taken up.
//!
//! A slab is entered when its bytes have been handed to the system. From time to time what was
//! entered is made durable: the files are flushed, then one record is appended to this process's
//! journal. So a slab that a journal names is in the files.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::clock;
use crate::host::planted::planted;
use crate::plan::arrange::Kept;
use crate::plan::block::Block;
use crate::plan::work::{Site, Slab, SlabId};
use crate::store::io::{self, Standing, WriteFile};
use crate::store::journal::{self, Journal};
use crate::tensor::digest::{Contribution, Joiner, residue};
use crate::transport::sink::Sink;
use crate::transport::traced::{self, Sums, Traced};
use crate::transport::witness::{Entered, Witness, counts};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two records of a journal.
const JOURNAL_SECONDS: u64 = 10;
/// A flush that takes long is not repeated before this many times its duration has passed.
const REST_PER_FLUSH: u32 = 20;

/// What is known so far of the residue of each segment of each shard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Residues(Vec<(Place, u32, u64)>);

impl Residues {
    /// Takes others; what is of the same segment is not put together before [`Residues::settle`].
    pub(crate) fn extend(&mut self, others: impl IntoIterator<Item = (Place, u32, u64)>) {
        self.0.extend(others);
    }

    /// Sorts, and puts together what is of the same segment.
    pub(crate) fn settle(&mut self) {
        self.0
            .sort_unstable_by_key(|(place, segment, _)| (*place, *segment));
        self.0.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            if same {
                kept.2 ^= next.2;
            }
            same
        });
    }

    /// The residue of a segment; to be asked when settled.
    pub(crate) fn get(&self, place: Place, segment: u32) -> u64 {
        let key = |(place, segment, _): &(Place, u32, u64)| (*place, *segment);
        let found = self.0.binary_search_by_key(&(place, segment), key);
        found.map_or(0, |at| self.0[at].2)
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|(place, _, _)| *place)
    }
}

impl IntoIterator for Residues {
    type Item = (Place, u32, u64);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Slabs that are done, and what they contribute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// The slabs.
    pub(crate) slabs: Vec<SlabId>,
    /// To the residue of each segment of each shard.
    pub(crate) shards: Residues,
    /// To the residue of each tensor, by its number among the plans.
    pub(crate) tensors: BTreeMap<u32, u64>,
    /// The same of the bytes that were read, where other ones are written.
    pub(crate) stored: BTreeMap<u32, u64>,
    /// Of source tensors that come in pieces.
    pub(crate) traced: Sums,
}

/// A record of a journal, as JSON has it.
#[derive(Serialize, Deserialize)]
struct Record {
    slabs: Vec<SlabId>,
    shards: Residues,
    tensors: Vec<(u32, u64)>,
    #[serde(default)]
    stored: Vec<(u32, u64)>,
    #[serde(default)]
    traced: Sums,
}

impl Done {
    fn to_record(&self) -> Result<Vec<u8>> {
        let record = Record {
            slabs: self.slabs.clone(),
            shards: self.shards.clone(),
            tensors: self.tensors.iter().map(|(n, value)| (*n, *value)).collect(),
            stored: self.stored.iter().map(|(n, value)| (*n, *value)).collect(),
            traced: self.traced.clone(),
        };
        serde_json::to_vec(&record)
            .map_err(|error| Fault::new(Kind::Internal, format!("can't keep a journal: {error}")))
    }

    fn from_record(bytes: &[u8]) -> Result<Done> {
        let record: Record = serde_json::from_slice(bytes)
            .map_err(|error| Fault::new(Kind::Corrupt, format!("is no record of ours: {error}")))?;
        Ok(Done {
            slabs: record.slabs,
            shards: record.shards,
            tensors: record.tensors.into_iter().collect(),
            stored: record.stored.into_iter().collect(),
            traced: record.traced,
        })
    }

    /// Takes another's entries; no slab is in both.
    pub(crate) fn add(&mut self, other: &Done) {
        self.slabs.extend(&other.slabs);
        self.shards.extend(other.shards.0.iter().copied());
        for (key, value) in &other.tensors {
            *self.tensors.entry(*key).or_default() ^= value;
        }
        for (key, value) in &other.stored {
            *self.stored.entry(*key).or_default() ^= value;
        }
        traced::add(&mut self.traced, &other.traced);
    }
}

/// Where processes enter what they have written.
pub(crate) struct Ledger<'a> {
    destination: &'a Catalog,
    kept: &'a Kept,
    traced: &'a Traced,
    /// Staging directory.
    base: PathBuf,
    journals: PathBuf,
    /// Beginning of the journal's name.
    name: String,
    flush: bool,
    every: Duration,
    state: Mutex<State>,
    journal: Mutex<Option<Journal>>,
}

struct State {
    total: Done,
    pending: Done,
    due: Instant,
}

/// Which journals a process can take up: those of the same work.
pub(crate) fn site_name(site: &Site) -> String {
    let mut of: Vec<u8> = site.ranks.iter().flat_map(|r| r.to_le_bytes()).collect();
    if let Some(division) = site.division {
        of.extend(division.number.to_le_bytes());
    }
    format!("{:016x}", crate::tensor::digest::checksum(&of))
}

/// What the journals of this site say is done. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(crate) fn read_journals(journals: &Path, site: &Site) -> Result<Done> {
    let mut done = Done::default();
    if io::standing(journals)? != Standing::Directory {
        return Ok(done);
    }
    let own = site_name(site);
    for (name, _) in io::list(journals)? {
        if name.starts_with(&own) {
            let path = journals.join(name);
            for record in journal::read(&path)? {
                let record = Done::from_record(&record);
                done.add(&record.map_err(|fault| fault.file(path.display().to_string()))?);
            }
        }
    }
    let distinct: BTreeSet<&SlabId> = done.slabs.iter().collect();
    if distinct.len() != done.slabs.len() {
        let fault = Fault::new(Kind::Corrupt, "the journals name the same work twice");
        return Err(fault.file(journals.display().to_string()));
    }
    Ok(done)
}

impl<'a> Ledger<'a> {
    /// An empty ledger for files of `destination` staged at `base`, with its journals in `journals`; also
    /// for the source tensors that are `traced`.
    pub(crate) fn new(
        destination: &'a Catalog,
        site: &Site,
        (kept, traced): (&'a Kept, &'a Traced),
        base: &Path,
        journals: PathBuf,
        flush: bool,
    ) -> Self {
        let seconds = std::env::var("SHARDLOOM_JOURNAL_SECONDS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(JOURNAL_SECONDS);
        let every = Duration::from_secs(seconds);
        Ledger {
            destination,
            kept,
            traced,
            base: base.to_path_buf(),
            journals,
            name: format!("{}-{}", site_name(site), site.index),
            flush,
            every,
            state: Mutex::new(State {
                total: Done::default(),
                pending: Done::default(),
                due: clock::now() + every,
            }),
            journal: Mutex::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes the files that `pending` is in, and writes it into the journal.
    fn record(&self, pending: &Done) -> Result<()> {
        if self.flush {
            let files: BTreeMap<(u32, u32), Place> = pending
                .shards
                .places()
                .map(|place| ((place.rank, place.file), place))
                .collect();
            for place in files.into_values() {
                let path = self.base.join(&self.destination.file(place).path);
                // What is the source's as it is comes last.
                if io::standing(&path)? != Standing::Nothing {
                    WriteFile::open(&path)?.sync()?;
                }
            }
        }
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *journal {
            Some(open) => open,
            None => {
                // Each run has journals of its own: an older one may end in half a record.
                let path = |n: u32| self.journals.join(format!("{}-{n}", self.name));
                let mut number = 0;
                while io::size(&path(number))?.is_some() {
                    number += 1;
                }
                let open = journal.insert(Journal::create(&path(number))?);
                if self.flush {
                    io::sync_directory(&self.journals)?;
                    io::sync_directory(&self.base)?;
                }
                open
            }
        };
        open.append(&pending.to_record()?, self.flush)
    }

    /// All that was entered.
    pub(crate) fn close(&self) -> Done {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        state.total.add(&pending);
        std::mem::take(&mut state.total)
    }
}

impl Witness for Ledger<'_> {
    fn read(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        with: (&mut Joiner, &mut Vec<u8>),
        entered: &mut Entered,
    ) -> Result<()> {
        if !counts(self.kept, slab, cell) {
            return Ok(());
        }
        // Where other bytes are written.
        if let Some(runs) = &slab.cells[cell].stored {
            let contribution = with.0.window(runs, slab.begin, tile);
            *entered.stored.get_or_insert(0) ^= contribution.tensor;
        }
        self.traced
            .note(slab, cell, tile, with, &mut entered.traced)
    }

    fn together(
        &self,
        slab: &Slab<'_>,
        block: &Block,
        bytes: &[u8],
        joiner: &mut Joiner,
        entered: &mut Entered,
    ) {
        let mut cells = 0..slab.cells.len();
        if !slab.plan.is_changed() && cells.all(|cell| counts(self.kept, slab, cell)) {
            let window = block.window(&(slab.begin..slab.end));
            entered.tensor ^= joiner.window(&block.runs, window.start, bytes).tensor;
            entered.together = true;
        }
    }

    fn written(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        joiner: &mut Joiner,
        entered: &mut Entered,
    ) -> Result<()> {
        let first = counts(self.kept, slab, cell);
        let cell = &slab.cells[cell];
        let [begin, end, bytes] =
            [slab.begin, slab.end, slab.plan.cell_bytes()].map(|at| slab.plan.written_bytes(at));
        let window = if first && !entered.together {
            let Contribution { tensor, window } = joiner.window(&cell.runs, begin, tile);
            entered.tensor ^= tensor;
            window
        } else {
            residue(tile)
        };
        let shifted = joiner.shift(window, bytes - end);
        for place in &cell.targets {
            let entry = self.destination.entry(*place);
            if entry.segments.len() == 1 {
                entered.shards.push((*place, 0, shifted));
                continue;
            }
            let mut before = 0;
            for (number, segment) in (0u32..).zip(&entry.segments) {
                let after = before + (segment.end - segment.start);
                let (from, to) = (begin.max(before), end.min(after));
                if from < to {
                    let index = |at: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
                    let part = tile.get(index(from)..index(to)).ok_or_else(|| {
                        Fault::new(Kind::Internal, "a segment lies outside its window")
                    })?;
                    let shifted = joiner.shift(residue(part), after - to);
                    entered.shards.push((*place, number, shifted));
                }
                before = after;
            }
        }
        Ok(())
    }

    fn enter(&self, slab: &Slab<'_>, entered: Entered, sink: &dyn Sink) -> Result<()> {
        let mut state = self.state();
        state.pending.shards.extend(entered.shards);
        *state.pending.tensors.entry(slab.id.tensor).or_default() ^= entered.tensor;
        if let Some(stored) = entered.stored {
            *state.pending.stored.entry(slab.id.tensor).or_default() ^= stored;
        }
        traced::add(&mut state.pending.traced, &entered.traced);
        state.pending.slabs.push(slab.id);
        if clock::now() < state.due {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut state.pending);
        pending.shards.settle();
        state.total.add(&pending);
        state.total.slabs.clear();
        // Nobody else comes here meanwhile.
        state.due += Duration::from_secs(3600);
        drop(state);
        let begin = clock::now();
        if !planted(Bug::JournalFirst) {
            sink.flush()?;
        }
        self.record(&pending)?;
        let rest = (clock::since(begin) * REST_PER_FLUSH).max(self.every);
        self.state().due = clock::now() + rest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_earlier_versions_are_read() {
        let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/old/journals");
        let mut told = Vec::new();
        for (name, _) in io::list(&old).unwrap() {
            let records = journal::read(&old.join(&name)).unwrap();
            let done = records
                .iter()
                .map(|record| Done::from_record(record).unwrap());
            let (mut slabs, mut sums) = (0, [0, 0]);
            for done in done {
                slabs += done.slabs.len();
                sums[0] += done.stored.len();
                sums[1] += done.traced.len();
            }
            told.push((name, slabs, sums));
        }
        let due = [("1", [0, 0]), ("2", [2, 0]), ("3", [2, 2])];
        assert_eq!(told, due.map(|(name, sums)| (name.to_owned(), 3, sums)));
    }
}
