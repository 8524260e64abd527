//! Strategy files, read where a node sees them and given to all processes.

use crate::engine::discover::allgather;
use crate::exchange::{Topology, World, agree, broadcast_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, ReadFile, Standing};
use crate::strategy::{Strategy, StrategyFile};
use crate::tensor::digest::checksum;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What a node sees of a strategy: nothing, or files with their bytes.
type StrategyBytes = Option<Vec<(String, Vec<u8>)>>;

/// Largest strategy file that is read.
const STRATEGY_BYTES_MAX: u64 = 1 << 30;

/// Reads a strategy (file or directory) that at least one node sees, on every process; gives the CRC
/// of what its files say, too. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Strategy`], [`Kind::Differs`] if two nodes see different ones.
pub fn read_strategy(
    world: &World,
    topology: &Topology,
    path: Option<&Path>,
) -> Result<(Option<Strategy>, Option<u64>)> {
    let Some(path) = path else {
        return Ok((None, None));
    };
    let leads = topology
        .nodes
        .iter()
        .any(|members| members[0] == world.process());
    let mine = agree(
        world,
        if leads {
            strategy_bytes(path)
        } else {
            Ok(None)
        },
    )?;
    let hash = mine.as_ref().map(|files| {
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        hasher.finish()
    });
    let hashes: Vec<Option<u64>> = allgather(world, &hash)?;
    let mut seeing = (0u32..)
        .zip(&hashes)
        .filter_map(|(process, hash)| Some((process, (*hash)?)));
    let Some((first, hash)) = seeing.next() else {
        let fault = Fault::new(Kind::Strategy, "no process finds this strategy");
        return Err(fault.file(path.display().to_string()));
    };
    if let Some((other, _)) = seeing.find(|(_, other)| *other != hash) {
        let message = format!("processes {first} and {other} see different strategies here");
        return Err(Fault::new(Kind::Differs, message).file(path.display().to_string()));
    }
    let bytes = match mine {
        Some(files) if world.process() == first => encode(&files),
        _ => Ok(Vec::new()),
    };
    let bytes = broadcast_bytes(world, first, agree(world, bytes)?)?;
    let read = decode::<Vec<(String, Vec<u8>)>>(&bytes).and_then(|files| {
        let files: Vec<StrategyFile<'_>> = files
            .iter()
            .map(|(name, bytes)| StrategyFile { name, bytes })
            .collect();
        let contents: Vec<&[u8]> = files.iter().map(|file| file.bytes).collect();
        let crc = checksum(&contents.concat());
        Ok((Some(Strategy::read(&files)?), Some(crc)))
    });
    agree(
        world,
        read.map_err(|fault| fault.file(path.display().to_string())),
    )
}

/// The bytes of a strategy file, or of those of a directory. Local.
///
/// # Errors
/// [`Kind::Io`], [`Kind::Strategy`] for a directory without strategy files.
pub fn strategy_bytes(path: &Path) -> Result<StrategyBytes> {
    let read = |path: &Path| {
        let bytes = ReadFile::open(path)?.read_all(STRATEGY_BYTES_MAX)?;
        Ok((path.display().to_string(), bytes))
    };
    match io::standing(path)? {
        Standing::Nothing => Ok(None),
        Standing::File => Ok(Some(vec![read(path)?])),
        Standing::Directory | Standing::EmptyDirectory => {
            let names = io::list(path)?;
            let files: Vec<PathBuf> = names
                .iter()
                .filter(|(name, directory)| {
                    !directory && (name.ends_with(".ckpt") || name.ends_with(".json"))
                })
                .map(|(name, _)| path.join(name))
                .collect();
            if files.is_empty() {
                let fault = Fault::new(Kind::Strategy, "has no strategy files (.ckpt or .json)");
                return Err(fault.file(path.display().to_string()));
            }
            files
                .iter()
                .map(|file| read(file))
                .collect::<Result<_>>()
                .map(Some)
        }
    }
}
