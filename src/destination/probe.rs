//! Whether nodes share the place of the destination.

use crate::exchange::{Topology, World, agree, broadcast_bytes, exchange_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use std::path::{Path, PathBuf};

/// Whether all nodes see what process 0 puts beside the destination. Collective.
pub(super) fn probe(world: &World, topology: &Topology, path: &Path) -> Result<bool> {
    let token = agree(
        world,
        if world.process() == 0 {
            put_token(path)
        } else {
            Ok(PathBuf::new())
        },
    )?;
    let name = token
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = broadcast_bytes(world, 0, name.into_bytes())?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let leads = topology.leads(world.process());
    let seen = if leads {
        standing_directory(path).and_then(|directory| io::standing(&directory.join(&name)))
    } else {
        Ok(Standing::File)
    };
    let seen = seen.is_ok_and(|standing| standing == Standing::File);
    let answers = exchange_bytes(world, vec![(0, vec![u8::from(seen)])])?;
    let all = answers.iter().all(|(_, answer)| answer == &[1]);
    let removed = if world.process() == 0 {
        io::remove(&token)
    } else {
        Ok(())
    };
    agree(world, removed)?;
    Ok(broadcast_bytes(world, 0, vec![u8::from(all)])? == [1])
}

/// The nearest directory above `path` that exists.
fn standing_directory(path: &Path) -> Result<PathBuf> {
    let mut directory = path.parent().unwrap_or(Path::new(""));
    loop {
        let here = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        match io::standing(here)? {
            Standing::Directory | Standing::EmptyDirectory => return Ok(here.to_path_buf()),
            Standing::File => {
                let fault = Fault::new(Kind::Io, "is no directory");
                return Err(fault.file(here.display().to_string()));
            }
            Standing::Nothing => directory = directory.parent().unwrap_or(Path::new("")),
        }
    }
}

fn put_token(path: &Path) -> Result<PathBuf> {
    let name = format!(".shardloom-probe-{}", std::process::id());
    let token = standing_directory(path)?.join(name);
    io::remove(&token)?;
    io::write_small(&token, b"shardloom asks who sees this", false)?;
    Ok(token)
}
