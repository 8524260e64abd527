//! The file systems of the paths given, and who shares them.

use super::finding::Finding;
use crate::exchange::{Topology, World, all_gather, barrier};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use crate::store::{ability, token};
use std::path::{Path, PathBuf};

const GIB: u64 = 1 << 30;
/// Room below which a checkpoint hardly fits, in bytes.
const ROOM_BYTES: u64 = GIB;
/// Files below which a checkpoint's ranks hardly fit.
const ROOM_FILES: u64 = 10_000;
/// How the files begin by which nodes find out whether they share a place.
const SIGN: &str = ".shardloom-doctor-";

/// Looks at the file system of each path, on each node's first process, and leaves a sign there; gives
/// the signs' names. Local.
pub(super) fn look(
    paths: &[PathBuf],
    topology: &Topology,
    world: &World,
) -> (Vec<Finding>, Vec<Option<String>>) {
    if !topology.leads(world.process()) {
        return (Vec::new(), vec![None; paths.len()]);
    }
    let node = topology.node_of.get(world.process() as usize);
    let node = node.and_then(|node| topology.hostnames.get(*node as usize));
    let node = node.cloned().unwrap_or_default();
    let mut found = Vec::new();
    let mut signs = Vec::new();
    for path in paths {
        let topic = path.display().to_string();
        let (mut more, sign) = match writable(path) {
            Ok(directory) => (of_place(&topic, &directory), sign(&directory)),
            Err(fault) => {
                let advice = fault
                    .hint
                    .unwrap_or_else(|| "give another directory".to_owned());
                (vec![Finding::wrong(&*topic, fault.message, advice)], None)
            }
        };
        found.append(&mut more);
        signs.push(sign);
    }
    (
        found.into_iter().map(|finding| finding.on(&node)).collect(),
        signs,
    )
}

/// The directory that is asked: the path itself, or the nearest above it that is there.
fn writable(path: &Path) -> Result<PathBuf> {
    let mut at = path;
    loop {
        let asked = if at.as_os_str().is_empty() {
            Path::new(".")
        } else {
            at
        };
        match io::standing(asked)? {
            Standing::Directory | Standing::EmptyDirectory => return io::resolve(asked),
            Standing::File => {
                let fault = Fault::new(Kind::Usage, "is a file");
                return Err(fault.hint("give the directory that results go to"));
            }
            Standing::Nothing => match at.parent() {
                Some(parent) => at = parent,
                None => return Err(Fault::new(Kind::Io, "is not there")),
            },
        }
    }
}

fn of_place(topic: &str, directory: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    found.push(room(topic, directory));
    let trial = directory.join(format!("{SIGN}{}", token()));
    let tried = io::make_directory(&trial).and_then(|()| ability::each(&trial));
    let removed = match io::standing(&trial) {
        Ok(Standing::Nothing) => Ok(()),
        _ => io::remove_directory(&trial),
    };
    match tried {
        Err(fault) => found.push(Finding::wrong(
            topic,
            format!("nothing can be written: {}", fault.message),
            "give a directory that this user may write to",
        )),
        Ok(abilities) => {
            let able: Vec<&str> = abilities
                .iter()
                .filter(|ability| ability.lacking.is_none())
                .map(|ability| ability.what)
                .collect();
            found.push(Finding::right(topic, format!("it can {}", able.join(", "))));
            for ability in abilities {
                let Some(reason) = ability.lacking else {
                    continue;
                };
                let line = format!("it can't {}", ability.what);
                found.push(match ability.way_round {
                    Some(way) => Finding::odd(topic, line, format!("nothing to do: {way}")),
                    None => Finding::wrong(
                        topic,
                        format!("{line}: {reason}"),
                        "write to another file system, and copy the result",
                    ),
                });
            }
        }
    }
    if let Err(fault) = removed {
        let advice = format!("remove {}", trial.display());
        found.push(Finding::odd(topic, fault.message, advice));
    }
    found
}

/// What kind of file system it is, and how much fits.
fn room(topic: &str, directory: &Path) -> Finding {
    let asked = io::file_system(directory).and_then(|kind| {
        let bytes = io::free_bytes(directory)?;
        Ok((kind, bytes, io::free_files(directory)?))
    });
    let (kind, bytes, files) = match asked {
        Ok(asked) => asked,
        Err(fault) => return Finding::wrong(topic, fault.message, "ask who looks after it"),
    };
    let few = files.filter(|files| *files < ROOM_FILES);
    let files_shown = few.map_or_else(String::new, |files| format!(" and {files} files"));
    let found = format!(
        "{kind}, room for {}.{} GiB{files_shown}",
        bytes / GIB,
        bytes % GIB * 10 / GIB
    );
    if bytes < ROOM_BYTES || few.is_some() {
        return Finding::odd(topic, found, "make room, or give another directory");
    }
    Finding::right(topic, found)
}

/// Leaves a file of a random name, that other nodes look for.
fn sign(directory: &Path) -> Option<String> {
    let name = format!("{SIGN}{}", token());
    let path = directory.join(&name);
    io::write_small(&path, b"", false).ok().map(|()| name)
}

/// Which places the nodes share. Collective.
///
/// # Errors
/// [`Kind::Mpi`].
pub(super) fn shared(
    world: &World,
    topology: &Topology,
    paths: &[PathBuf],
    signs: &[Option<String>],
) -> Result<Vec<Finding>> {
    let all: Vec<Vec<Option<String>>> = all_gather(world, &signs.to_vec())?;
    barrier(world)?;
    let seen: Vec<Vec<bool>> = paths
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let directory = writable(path).ok();
            topology
                .nodes
                .iter()
                .map(|members| {
                    let leader = members.first().map_or(0, |leader| *leader as usize);
                    let sign = all.get(leader).and_then(|signs| signs.get(index)?.clone());
                    let there = directory.as_ref().zip(sign).map(|(directory, sign)| {
                        matches!(io::standing(&directory.join(sign)), Ok(Standing::File))
                    });
                    there.unwrap_or(false)
                })
                .collect()
        })
        .collect();
    let seen_by: Vec<Vec<Vec<bool>>> = all_gather(world, &seen)?;
    if topology.nodes.len() < 2 {
        return Ok(Vec::new());
    }
    let found = paths.iter().enumerate().map(|(index, path)| {
        let topic = path.display().to_string();
        let views = topology.nodes.iter().map(|members| {
            let leader = members.first().map_or(0, |leader| *leader as usize);
            let seen = seen_by.get(leader).and_then(|seen| seen.get(index));
            seen.map_or(0, |seen| seen.iter().filter(|there| **there).count())
        });
        let counts: Vec<usize> = views.collect();
        if counts.iter().all(|count| *count == topology.nodes.len()) {
            return Finding::right(topic, "all nodes share it");
        }
        if counts.iter().all(|count| *count <= 1) {
            return Finding::right(topic, "every node has its own");
        }
        Finding::odd(
            topic,
            "some nodes share it, others don't, or see files late",
            "mount it everywhere, or nowhere",
        )
    });
    Ok(found.collect())
}

/// Removes this process's signs, after all have looked. Collective.
///
/// # Errors
/// [`Kind::Io`].
pub(super) fn clear(paths: &[PathBuf], signs: &[Option<String>]) -> Result<()> {
    for (path, sign) in paths.iter().zip(signs) {
        if let Some(sign) = sign {
            io::remove(&writable(path)?.join(sign))?;
        }
    }
    Ok(())
}
