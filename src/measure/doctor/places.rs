//! The file systems of the paths given, and who shares them.

use super::finding::Finding;
use super::memory::gib;
use crate::course;
use crate::destination::{sharing, standing_directory};
use crate::exchange::{Topology, World};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use crate::store::{ability, token};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Room below which a checkpoint hardly fits, in bytes.
const ROOM_BYTES: u64 = 1 << 30;
/// Files below which a checkpoint's ranks hardly fit.
const ROOM_FILES: u64 = 10_000;
/// Milliseconds from which a file server's clock is another.
const CLOCK_MILLIS: i128 = 2_000;
/// How the names begin of directories in which things are tried.
const TRIAL: &str = ".shardloom-doctor-";

/// Looks at the file system of each path, on each node's first process. Local.
pub(super) fn look(
    paths: &[PathBuf],
    topology: &Topology,
    world: &World,
    contained: bool,
) -> Vec<Finding> {
    if !topology.leads(world.process()) {
        return Vec::new();
    }
    let node = topology.node_of.get(world.process() as usize);
    let node = node.and_then(|node| topology.hostnames.get(*node as usize));
    let node = node.cloned().unwrap_or_default();
    let found = paths.iter().flat_map(|path| {
        let topic = path.display().to_string();
        match directory(path) {
            Ok(directory) => {
                let mut found = Vec::from_iter(nothing_there(&topic, path, &directory));
                found.push(room(&topic, &directory));
                found.extend(lasting(&topic, &directory, contained));
                found.extend(of_place(&topic, &directory));
                found
            }
            Err(fault) => {
                let advice = fault
                    .hint
                    .unwrap_or_else(|| "give another directory".to_owned());
                vec![Finding::wrong(topic, fault.message, advice)]
            }
        }
    });
    found.map(|finding| finding.on(&node)).collect()
}

/// The directory that is asked: the path itself, or the nearest above it that is there.
fn directory(path: &Path) -> Result<PathBuf> {
    if io::standing(path)? == Standing::File {
        let fault = Fault::new(Kind::Usage, "is a file");
        return Err(fault.hint("give the directory that results go to"));
    }
    standing_directory(&result(path))
}

/// What is said of a path where nothing is: a result's directory is made, a source's has to be there.
fn nothing_there(topic: &str, path: &Path, directory: &Path) -> Option<Finding> {
    if io::standing(path).ok() != Some(Standing::Nothing) {
        return None;
    }
    let found = format!("doesn't exist: what follows is of {}", directory.display());
    let advice = "a job makes it for its result; if a source is meant, the name is wrong or it isn't mounted";
    Some(Finding::odd(topic, found, advice))
}

/// A result that would go to the directory `path`.
fn result(path: &Path) -> PathBuf {
    path.join(TRIAL)
}

fn of_place(topic: &str, directory: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let trial = directory.join(format!("{TRIAL}{}", token()));
    let _scratch = course::tries_with(&trial);
    let tried = io::make_directory(&trial).and_then(|()| ability::each(&trial));
    found.extend(tried.as_ref().ok().and_then(|_| clock(topic, &trial)));
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
    let found = format!("{kind}, room for {}{files_shown}", gib(bytes));
    if bytes < ROOM_BYTES || few.is_some() {
        return Finding::odd(topic, found, "make room, or give another directory");
    }
    Finding::right(topic, found)
}

/// What goes with the machine or the container.
fn lasting(topic: &str, directory: &Path, contained: bool) -> Option<Finding> {
    match io::file_system(directory).ok()?.as_str() {
        "overlay" if contained => Some(Finding::odd(
            topic,
            "it is the container's own: what is written goes with the container",
            "give a directory of a volume that is mounted",
        )),
        "tmpfs" | "ramfs" => Some(Finding::odd(
            topic,
            "it is memory: what is written takes of it, and is gone after a restart",
            "copy what is to stay to a disk",
        )),
        _ => None,
    }
}

/// How far the clock of the file system is from this node's: a file server has its own.
fn clock(topic: &str, trial: &Path) -> Option<Finding> {
    let file = trial.join("now");
    let millis = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |now| i128::try_from(now.as_millis()).unwrap_or_default())
    };
    let before = millis();
    io::write_small(&file, b"1", false).ok()?;
    let after = millis();
    let (_, nanos) = io::stamp(&file).ok()??;
    clock_apart(topic, before, nanos / 1_000_000, after)
}

/// A file of the time `written` was made between `before` and `after`, in milliseconds.
fn clock_apart(topic: &str, before: i128, written: i128, after: i128) -> Option<Finding> {
    let apart = (before - written).max(written - after);
    (apart >= CLOCK_MILLIS).then(|| {
        let found = format!("its clock is {} s from this node's", apart / 1000);
        let advice = "let chrony or ntpd set both: which file is newer is told by their times";
        Finding::odd(topic, found, advice)
    })
}

/// Which places the nodes share. Collective.
pub(super) fn shared(world: &World, topology: &Topology, paths: &[PathBuf]) -> Vec<Finding> {
    if topology.nodes.len() < 2 {
        return Vec::new();
    }
    // Where nothing can be written is told already.
    let found = paths.iter().filter_map(|path| {
        let first = sharing(world, topology, &result(path)).ok()?;
        let topic = path.display().to_string();
        if first.iter().all(|first| *first == 0) {
            return Some(Finding::right(topic, "all nodes share it"));
        }
        if (0u32..).zip(&first).all(|(node, first)| node == *first) {
            return Some(Finding::right(topic, "every node has its own"));
        }
        Some(Finding::odd(
            topic,
            "some nodes share it, others don't",
            "mount it everywhere, or nowhere",
        ))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_server_s_clock_is_compared() {
        let told = |written| clock_apart("/x", 10_000, written, 10_100);
        assert_eq!(told(10_050), None);
        // A file system may have whole seconds only.
        assert_eq!(told(9_000), None);
        assert!(told(4_000).unwrap().found.contains("6 s from"));
        assert!(told(20_100).unwrap().found.contains("10 s from"));
    }
}
