//! Which checkpoints there are, and which of them all ranks have.
//!
//! Each node lists the rank directories that it sees, so ranks may lie on the nodes' own disks; each
//! file's header is read by one process.

use crate::catalog::FileSchema;
use crate::exchange::{Topology, World, agree, all_gather, all_gather_agreed};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::plan::state::is_state;
use crate::source::meta::{META, META_BYTES_MAX, Meta, Name};
use crate::source::nothing;
use crate::source::numbered::{self, Numbered};
use crate::source::position::{Offered, saved};
use crate::source::ranks::named;
use crate::source::saved::{Checkpoint, Survey};
use crate::source::scalars::scalar;
use crate::source::step::{self, Counts, Spots};
use crate::source::views::Views;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::Manifest;
use crate::store::{Format, rank_dir};
use crate::tensor::number::whole;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// A file as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    rank: u32,
    directory: String,
    file: String,
    bytes: u64,
    modified: i128,
}

/// What a node sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sight {
    inside: bool,
    ranks: BTreeSet<u32>,
    files: Vec<Seen>,
    metas: BTreeMap<u32, Name>,
    numbered: Vec<Numbered>,
}

/// What a header says of a file: or why it can't be used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Header {
    step: Option<u64>,
    batch: Option<u64>,
    redundancy_removed: Option<bool>,
    counts: Counts,
    tensors: Option<usize>,
    /// Of these weights, and states of an optimizer.
    of_kind: [usize; 2],
    bad: Option<String>,
}

/// Looks through `directory` (rank directories, or a `checkpoint` directory that has them). With
/// `headers` every file's header and size are checked. `ranks` says how many there must be, where
/// that is more than can be seen. Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`] if nobody sees a rank directory, [`Kind::Io`].
pub fn survey(
    world: &World,
    topology: &Topology,
    directory: &Path,
    ranks: Option<u32>,
    headers: bool,
) -> Result<Survey> {
    let views = Views::of(world, topology, directory)?;
    let mine = if views.leads(world) {
        look(directory, headers)
    } else {
        Ok(Sight::default())
    };
    let sights: Vec<Sight> = all_gather_agreed(world, mine)?;
    let begun = agree(world, begin(&sights, topology, directory, ranks))?;
    let (mut survey, files) = begun;
    let base = &survey.directory;
    let mine = read_headers(world.process(), topology, base, &files, headers);
    let all = all_gather(world, &mine)?.into_iter().flatten();
    let ranks = survey.ranks;
    survey
        .checkpoints
        .extend(group(&files, all, ranks, headers));
    Ok(survey)
}

/// The same of one process that is alone. Local.
///
/// # Errors
/// As [`survey`].
pub(super) fn survey_alone(directory: &Path) -> Result<Survey> {
    let topology = Topology {
        node_of: vec![0],
        nodes: vec![vec![0]],
        hostnames: vec![String::new()],
    };
    let sights = [look(directory, true)?];
    let (mut survey, files) = begin(&sights, &topology, directory, None)?;
    let all = read_headers(0, &topology, &survey.directory, &files, true);
    let ranks = survey.ranks;
    survey.checkpoints.extend(group(&files, all, ranks, true));
    Ok(survey)
}

/// What is known by what all nodes see, and the files whose headers are to be read. Local.
fn begin(
    sights: &[Sight],
    topology: &Topology,
    directory: &Path,
    ranks: Option<u32>,
) -> Result<(Survey, Vec<File>)> {
    let inside = sights.iter().any(|sight| sight.inside);
    let base = if inside {
        directory.join("checkpoint")
    } else {
        directory.to_path_buf()
    };
    // One text tells of all ranks, on shared storage, so one node's view is everybody's.
    if let Some(sight) = sights.iter().find(|sight| !sight.numbered.is_empty()) {
        if let Some(seen) = sights.iter().flat_map(|sight| &sight.files).next() {
            let message = format!(
                "has checkpoints that tell their own layout, and files of ranks beside them ({}/{})",
                seen.directory, seen.file
            );
            let fault = Fault::new(Kind::Ambiguous, message).file(base.display().to_string());
            return Err(fault.hint("move one of them into a directory of its own"));
        }
        return Ok((numbered::survey(&base, &sight.numbered), Vec::new()));
    }
    let found: BTreeSet<u32> = sights
        .iter()
        .flat_map(|sight| sight.ranks.iter().copied())
        .collect();
    let Some(last) = found.last() else {
        return Err(nothing::without_ranks(directory, &base)?);
    };
    let mut survey = Survey {
        directory: base,
        ranks: ranks.unwrap_or(last + 1).max(last + 1),
        ..Survey::default()
    };
    for sight in sights {
        for (rank, name) in &sight.metas {
            survey.metas.entry(*rank).or_insert_with(|| name.clone());
        }
    }
    Ok((survey, join(sights, topology)))
}

/// Lists what this node sees. Local.
fn look(directory: &Path, headers: bool) -> Result<Sight> {
    let mut sight = Sight::default();
    let mut base = directory.to_path_buf();
    if !matches!(io::standing(&base)?, Standing::Directory) {
        return Ok(sight);
    }
    let rank_of =
        |(name, directory): &(String, bool)| rank_dir::rank_of(name).filter(|_| *directory);
    let mut names = io::list(&base)?;
    if !names.iter().any(|name| rank_of(name).is_some())
        && names
            .iter()
            .any(|(name, directory)| *directory && name == "checkpoint")
    {
        base = base.join("checkpoint");
        names = io::list(&base)?;
        sight.inside = true;
    }
    sight.numbered = numbered::look(&base, &names, headers)?;
    for (name, _) in names.iter().filter(|(_, directory)| !directory) {
        if let Some(rank) = rank_dir::rank_of(name) {
            nothing::refuse_nowhere(&base.join(name))?;
            sight.ranks.insert(rank);
        }
    }
    let mut bare = Vec::new();
    for (directory, rank) in names
        .iter()
        .filter_map(|name| Some((&name.0, rank_of(name)?)))
    {
        let room = base.join(directory);
        let entries = io::list(&room)?;
        sight.ranks.insert(rank);
        if !entries.iter().any(|(file, _)| Name::parse(file).is_some()) {
            bare.push((rank, directory, entries.clone()));
        }
        for (file, folder) in entries {
            if folder {
                continue;
            }
            if file == META {
                let bytes = ReadFile::open(&room.join(&file))?.read_all(META_BYTES_MAX);
                if let Some((_, name)) = bytes.ok().and_then(|bytes| Meta::parse(&bytes)) {
                    sight.metas.insert(rank, name);
                }
            } else if Name::parse(&file).is_some() {
                let (bytes, modified) = io::stamp(&room.join(&file))?.unwrap_or_default();
                sight.files.push(Seen {
                    rank,
                    directory: directory.clone(),
                    file,
                    bytes,
                    modified,
                });
            }
        }
    }
    if !bare.is_empty()
        && let Some(manifest) = Manifest::read_sound(&base)?
    {
        // What was carried along is left of ranks that there are no more.
        bare.retain(|(_, directory, entries)| manifest.only_carried(directory, entries));
        for (rank, ..) in bare {
            sight.ranks.remove(&rank);
            sight.metas.remove(&rank);
        }
    }
    Ok(sight)
}

/// A file, the nodes that see it, and why it can't be used where they disagree.
struct File {
    seen: Seen,
    nodes: Vec<usize>,
    differs: Option<String>,
}

fn join(sights: &[Sight], topology: &Topology) -> Vec<File> {
    let mut files: BTreeMap<(u32, String), File> = BTreeMap::new();
    for (process, sight) in sights.iter().enumerate() {
        let node = topology
            .node_of
            .get(process)
            .map_or(0, |node| *node as usize);
        for seen in &sight.files {
            let key = (seen.rank, seen.file.clone());
            let file = files.entry(key).or_insert_with(|| File {
                seen: seen.clone(),
                nodes: Vec::new(),
                differs: None,
            });
            if file.seen.bytes != seen.bytes {
                let first = file.nodes.first().copied().unwrap_or_default();
                file.differs = Some(format!(
                    "rank {}: {} has {} bytes on {}, {} on {}",
                    seen.rank,
                    seen.file,
                    file.seen.bytes,
                    topology.hostnames[first],
                    seen.bytes,
                    topology.hostnames[node]
                ));
            }
            file.nodes.push(node);
        }
    }
    files.into_values().collect()
}

/// Reads the headers that fall to this process, by number of the file. Local.
fn read_headers(
    process: u32,
    topology: &Topology,
    base: &Path,
    files: &[File],
    check: bool,
) -> Vec<(usize, Header)> {
    let mut mine: Vec<(usize, Header)> = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let Some(node) = file.nodes.first() else {
            continue;
        };
        let members = &topology.nodes[*node];
        if members[number % members.len()] != process {
            continue;
        }
        let path = base.join(&file.seen.directory).join(&file.seen.file);
        let header = read_header(&path).unwrap_or_else(|fault| Header {
            bad: check.then(|| {
                format!(
                    "rank {}: {}: {}",
                    file.seen.rank, file.seen.file, fault.message
                )
            }),
            ..Header::default()
        });
        mine.push((number, header));
    }
    mine
}

/// Weights, and states of an optimizer; no counts.
fn of_kind(schema: &FileSchema) -> [usize; 2] {
    let entries = schema.entries.iter();
    let tensors = entries.filter(|entry| !entry.shape.0.is_empty());
    tensors.fold([0, 0], |[weights, states], entry| {
        match is_state(&entry.name) {
            true => [weights, states + 1],
            false => [weights + 1, states],
        }
    })
}

fn read_header(path: &Path) -> Result<Header> {
    let file = ReadFile::open(path)?;
    let schema = Format::recognise(&file)?.read(&file)?;
    Ok(Header {
        step: scalar(&file, &schema, "step_num")?.and_then(whole),
        batch: scalar(&file, &schema, "global_batch_size")?.and_then(whole),
        redundancy_removed: schema
            .metadata
            .get("remove_redundancy")
            .map(|value| value == "True"),
        counts: Spots::of(&schema).read(&file)?,
        tensors: Some(schema.entries.len()),
        of_kind: of_kind(&schema),
        bad: None,
    })
}

/// The files of each rank.
fn offered(files: &[File]) -> Offered {
    let mut offered = Offered::new();
    for file in files {
        let own = offered.entry(file.seen.rank).or_default();
        own.push(file.seen.file.clone());
    }
    offered
}

/// Groups the files by name, with what their headers say; what is in them is only to be checked if it is asked for.
fn group(
    files: &[File],
    read: impl IntoIterator<Item = (usize, Header)>,
    expected: u32,
    check: bool,
) -> Vec<Checkpoint> {
    let read: HashMap<usize, Header> = read.into_iter().collect();
    let headers = (0..files.len()).map(|number| read.get(&number).cloned().unwrap_or_default());
    let headers: Vec<Header> = headers.collect();
    let offered = offered(files);
    let names = saved(&offered).filter(|saved| !saved.misplaced);
    let names: HashMap<(u32, &str), Name> = names
        .map(|saved| ((saved.rank, saved.path), saved.name))
        .collect();
    let mut groups = Groups::new();
    for (file, header) in files.iter().zip(&headers) {
        if let Some(name) = names.get(&(file.seen.rank, file.seen.file.as_str())) {
            groups.entry(name.clone()).or_default().push((file, header));
        }
    }
    let fullest = fullest(&groups);
    let checkpoints = groups.into_iter().map(|(name, members)| {
        let ranks: Vec<u32> = members.iter().map(|(file, _)| file.seen.rank).collect();
        let missing: Vec<u32> = (0..expected).filter(|rank| !ranks.contains(rank)).collect();
        let bad = members
            .iter()
            .find_map(|(file, header)| file.differs.clone().or_else(|| header.bad.clone()));
        let counts: Vec<_> = members
            .iter()
            .map(|(file, header)| (file.seen.rank, header.counts))
            .collect();
        let twice = members.windows(2).find_map(|two| {
            let [one, other] = [two[0].0, two[1].0].map(|file| &file.seen);
            let message = || {
                format!(
                    "rank {} has {} and {} of it",
                    one.rank, one.file, other.file
                )
            };
            (one.rank == other.rank).then(message)
        });
        let why = match missing[..] {
            [] if twice.is_some() => twice,
            [] if !check => None,
            [] => bad
                .or_else(|| step::difference(&counts))
                .or_else(|| lacking(&name, &members, &fullest)),
            [rank] => Some(format!("rank {rank} has no file of it")),
            _ => Some(format!("{} have no file of it", named(&missing))),
        };
        Checkpoint {
            epoch: Some(name.epoch),
            step: members
                .iter()
                .find_map(|(_, header)| header.step)
                .unwrap_or(name.step),
            states: members.iter().any(|(_, header)| header.of_kind[1] > 0),
            why,
            global_batch_size: members.iter().find_map(|(_, header)| header.batch),
            bytes: members.iter().map(|(file, _)| file.seen.bytes).sum(),
            files: members
                .iter()
                .map(|(file, _)| format!("{}/{}", file.seen.directory, file.seen.file))
                .collect(),
            redundancy_removed: members
                .iter()
                .find_map(|(_, header)| header.redundancy_removed),
            modified: members
                .iter()
                .map(|(file, _)| file.seen.modified)
                .max()
                .unwrap_or(0),
            times: members.iter().map(|(file, _)| file.seen.modified).collect(),
            directory: None,
            ranks,
            name,
        }
    });
    checkpoints.collect()
}

/// The files of each checkpoint, with what their headers say.
type Groups<'a> = BTreeMap<Name, Vec<(&'a File, &'a Header)>>;

/// The run of a checkpoint, and a rank.
type Saver = (Name, u32);

/// Of each rank the file of a run that has the most tensors: how many, and how many weights.
fn fullest<'a>(groups: &Groups<'a>) -> BTreeMap<Saver, (usize, usize, &'a str)> {
    let mut fullest: BTreeMap<Saver, (usize, usize, &str)> = BTreeMap::new();
    for (name, members) in groups {
        for (file, header) in members {
            let key = (name.run(), file.seen.rank);
            let tensors = header.tensors.unwrap_or_default();
            let most = fullest.entry(key).or_default();
            *most = (*most).max((tensors, header.of_kind[0], &file.seen.file));
        }
    }
    fullest
}

/// A file that has fewer tensors than its rank has saved at another step of the run, and not just all of its weights.
fn lacking(
    name: &Name,
    members: &[(&File, &Header)],
    fullest: &BTreeMap<Saver, (usize, usize, &str)>,
) -> Option<String> {
    members.iter().find_map(|(file, header)| {
        let Seen { rank, file, .. } = &file.seen;
        let (most, weights, other) = fullest.get(&(name.run(), *rank))?;
        let [own_weights, states] = header.of_kind;
        let weights_alone = states == 0 && own_weights >= *weights;
        let own = header.tensors.filter(|own| own < most && !weights_alone)?;
        let tensors = counted(own as u64, "tensor");
        Some(format!(
            "rank {rank}: {file} has {tensors}, {other} has {most}"
        ))
    })
}
