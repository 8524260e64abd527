//! A directory's files checked against its manifest: who shares the work, and which files are wrong.

use crate::exchange::{
    Operation, Progress, Topology, World, agree, all_gather, all_reduce, encode, exchange_bytes,
};
use crate::fault::Result;
use crate::job::outcome::BadFile;
use crate::job::seen::{Sight, missing, name_host, sights, unlisted};
use crate::job::tally;
use crate::job::verify::found::{Found, damaged, look, no_manifest};
use crate::job::verify::share::{Share, Sums, suspects};
use crate::job::verify::subset::Subset;
use crate::source::Still;
use crate::store::manifest::Manifest;
use crate::transport::Observer;
use std::path::Path;

/// What every process sees of the manifest.
type Seen = Vec<Option<std::result::Result<Sight, String>>>;

/// What a check has found. A manifest is shared by all nodes that see the same file; each copy of it
/// has files of its own.
pub(in crate::job) struct Checked {
    /// The manifest that this process sees; empty where it sees none, or a damaged one.
    pub(in crate::job) manifest: Manifest,
    /// Numbers of its files that are not as they were written, the same on all that see it.
    pub(in crate::job) suspects: Vec<usize>,
    /// The first process that sees the manifest.
    pub(in crate::job) head: u32,
    /// Bytes that this process has read.
    pub(in crate::job) read: u64,
    /// How many of its files were to be checked.
    files: usize,
    /// What is wrong besides, as this process found it.
    bad: Vec<BadFile>,
    /// Place of this process among those that see the manifest.
    index: usize,
    /// How many they are.
    members: usize,
    /// Whether this process speaks for them.
    speaks: bool,
    seen: Seen,
}

/// What all processes know in the end.
pub(in crate::job) struct Told {
    /// Files checked.
    pub(in crate::job) checked: u64,
    /// Bytes read.
    pub(in crate::job) read: u64,
    /// What is wrong.
    pub(in crate::job) bad: Vec<BadFile>,
}

/// The processes that see the same manifest share the work by bytes; of its files those of `subset` are
/// checked; `observer` hears how many bytes are read, of how many. One that is `lent` stands for a manifest that is damaged or gone. Collective.
///
/// # Errors
/// The same on every process, if none of them sees a manifest.
pub(in crate::job) fn check(
    world: &World,
    directory: &Path,
    subset: Option<Subset>,
    lent: Option<&Manifest>,
    observer: &mut Observer<'_>,
) -> Result<Checked> {
    let found = match (agree(world, look(directory))?, lent) {
        (Found::Damaged(_) | Found::Nothing, Some(lent)) => Found::Manifest(Box::new(lent.clone())),
        (found, _) => found,
    };
    let seen = match &found {
        Found::Nothing => Ok(None),
        Found::Damaged(reason) => Err(reason.as_str()),
        Found::Manifest(manifest) => Ok(Some(manifest.as_ref())),
    };
    let seen = sights(world, directory, seen)?;
    if seen.iter().all(Option::is_none) {
        return Err(no_manifest(directory));
    }
    let process = world.process();
    let mine = seen.get(process as usize).unwrap_or(&None);
    let members: Vec<u32> = (0u32..)
        .zip(&seen)
        .filter(|(_, other)| *other == mine)
        .map(|(process, _)| process)
        .collect();
    let head = members.first().copied().unwrap_or(process);
    let index = members.iter().position(|m| *m == process).unwrap_or(0);
    let speaks = head == process && matches!(found, Found::Manifest(_));
    let (manifest, mut bad) = match found {
        Found::Manifest(manifest) => (*manifest, Vec::new()),
        Found::Damaged(reason) if head == process => (Manifest::default(), vec![damaged(reason)]),
        Found::Damaged(_) | Found::Nothing => (Manifest::default(), Vec::new()),
    };
    let strange = speaks.then(|| unlisted(directory, &manifest));
    bad.extend(agree(world, strange.unwrap_or_else(|| Ok(Vec::new())))?);
    let share = Share {
        index: index as u64,
        of: members.len() as u64,
    };
    let chosen = subset.map_or_else(
        || (0..manifest.files.len()).collect(),
        |subset| subset.files(&manifest),
    );
    let part = part(&manifest, &chosen);
    let mut still = Still::default();
    let mut files = share.files(&part).into_iter();
    let looked = files.try_for_each(|file| still.also(&directory.join(&file.path)));
    agree(world, looked)?;
    let (sums, read, wrong) = sums(world, &share, directory, &part, observer)?;
    let found = agree(world, encode(&(sums, wrong)))?;
    let suspects = gathered(world, head, found, &part)?.into_iter();
    let suspects = suspects.filter_map(|number| chosen.get(number).copied());
    still.check(world)?;
    Ok(Checked {
        manifest,
        suspects: suspects.collect(),
        files: chosen.len(),
        head,
        read,
        bad,
        index,
        members: members.len(),
        speaks,
        seen,
    })
}

/// What is suspect by what all processes of `head` have found, by number in `part`. Collective.
fn gathered(world: &World, head: u32, found: Vec<u8>, part: &Manifest) -> Result<Vec<usize>> {
    let messages = exchange_bytes(world, vec![(head, found)])?;
    let suspects = (head == world.process()).then(|| suspects(part, &messages));
    let suspects = agree(world, suspects.unwrap_or_else(|| Ok(Vec::new())))?;
    let mut suspects = all_gather(world, &suspects)?;
    let suspects = suspects.get_mut(head as usize).map(std::mem::take);
    Ok(suspects.unwrap_or_default())
}

/// What this process's share comes to; the observer hears how far all are. Collective.
fn sums(
    world: &World,
    share: &Share,
    directory: &Path,
    part: &Manifest,
    observer: &mut Observer<'_>,
) -> Result<(Sums, u64, Vec<usize>)> {
    let own = share.range(part);
    let mut total = [own.end - own.start];
    all_reduce(world, &mut total, Operation::Sum)?;
    let mut progress = Progress::start(world);
    let (mut read, mut refused) = (0, Ok(()));
    let mut told = |bytes| {
        read += bytes;
        match progress.report(read).and_then(|()| progress.total()) {
            Ok(done) => observer(done, total[0]),
            Err(fault) => refused = Err(fault),
        }
    };
    let result = share.sums(directory, part, &mut told);
    agree(world, refused)?;
    observer(progress.finish()?, total[0]);
    Ok(result)
}

/// A manifest of some of the files.
fn part(manifest: &Manifest, files: &[usize]) -> Manifest {
    let chosen = files
        .iter()
        .filter_map(|number| manifest.files.get(*number));
    Manifest {
        structures: manifest.structures.clone(),
        files: chosen.cloned().collect(),
        ..Manifest::default()
    }
}

impl Checked {
    /// Whether this process is the first of those that see the manifest. Local.
    pub(in crate::job) fn speaks(&self) -> bool {
        self.speaks
    }

    /// Forgets the manifest, which is no word on these files: they have one that is bad. Local.
    pub(in crate::job) fn forget(&mut self, reason: String) {
        self.manifest = Manifest::default();
        self.suspects = Vec::new();
        self.files = 0;
        self.bad = match self.speaks {
            true => vec![damaged(reason)],
            false => Vec::new(),
        };
        self.speaks = false;
    }

    /// The suspects that are this process's to look after. Local.
    pub(in crate::job) fn own(&self) -> Vec<usize> {
        let turns = self.suspects.iter().enumerate();
        turns
            .filter(|(turn, _)| turn % self.members.max(1) == self.index)
            .map(|(_, number)| *number)
            .collect()
    }

    /// Puts what the processes have found together: `bad` is what this one knows of its own suspects.
    /// Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`].
    pub(in crate::job) fn told(
        mut self,
        world: &World,
        topology: &Topology,
        bad: Vec<BadFile>,
    ) -> Result<Told> {
        let mut own = std::mem::take(&mut self.bad);
        own.extend(bad);
        name_host(topology, world.process(), &self.seen, &mut own);
        own.extend(missing(
            world,
            topology,
            self.speaks.then_some(&self.manifest),
        )?);
        let first = world.process() == self.head;
        let checked = if first { self.files } else { 0 };
        let checked = tally::sum(world, checked as u64)?;
        let read = tally::sum(world, self.read)?;
        let mut all: Vec<BadFile> = all_gather(world, &own)?.into_iter().flatten().collect();
        all.sort();
        all.dedup();
        Ok(Told {
            checked,
            read,
            bad: all,
        })
    }
}
