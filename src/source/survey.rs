//! Which checkpoints there are, and which of them all ranks have.
//!
//! Each node lists the rank directories that it sees, so ranks may lie on the nodes' own disks; each
//! file's header is read by one process.

use crate::catalog::FileSchema;
use crate::exchange::{Topology, World, agree, all_gather, all_gather_agreed};
use crate::fault::{Fault, Kind, Result};
use crate::plan::state::is_state;
use crate::source::grouped::{File, Header, Seen, group};
use crate::source::meta::{META, META_BYTES_MAX, Meta, Name};
use crate::source::nothing;
use crate::source::numbered::{self, Numbered};
use crate::source::saved::Survey;
use crate::source::scalars::scalar;
use crate::source::step::Spots;
use crate::source::views::Views;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::Manifest;
use crate::store::{Format, rank_dir};
use crate::tensor::number::whole;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a node sees.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sight {
    inside: bool,
    ranks: BTreeSet<u32>,
    files: Vec<Seen>,
    metas: BTreeMap<u32, Name>,
    numbered: Vec<Numbered>,
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
