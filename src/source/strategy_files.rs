//! Strategy files, read where a node sees them and given to all processes. A job may have written one a rank, and those
//! of a stage alike: equal ones are kept once.

use crate::exchange::{Topology, World, all_gather, all_gather_agreed};
use crate::fault::{Fault, Kind, Result};
use crate::source::laid::kept;
use crate::source::nothing::{absent, refuse_weights};
use crate::source::views::Views;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::NAME;
use crate::strategy::StrategyInput;
use crate::strategy::{Strategy, StrategyFile};
use crate::tensor::digest::{checksum, finish, residue, shift};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a node sees of a strategy: nothing, or files with their bytes.
type StrategyBytes = Option<Vec<(String, Arc<Vec<u8>>)>>;

/// Largest strategy file that is read.
const STRATEGY_BYTES_MAX: u64 = 1 << 30;

/// Reads a strategy (file or directory) that at least one node sees, or that is at hand, on every process;
/// gives the CRC of what its files say, too. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Strategy`], [`Kind::Differs`] if two nodes see different ones.
pub fn read_strategy(
    world: &World,
    topology: &Topology,
    input: Option<&StrategyInput>,
) -> Result<(Option<Strategy>, Option<u64>)> {
    let Some(input) = input else {
        return Ok((None, None));
    };
    let path = input.typed();
    if let Some(bytes) = input.bytes() {
        let read = at_hand(path, bytes)?.of_shapes(input.shapes());
        return Ok((Some(read), Some(checksum(bytes))));
    }
    let mine = read_in_turn(world, topology, path)?;
    let Some(files) = gather(world, mine)? else {
        return Err(no_strategy(path));
    };
    let views: Vec<StrategyFile<'_>> = files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect();
    let crc = checksum_of_all(&files);
    // The same bytes everywhere: what can't be read here can't be elsewhere.
    let read = Strategy::read(&views).map_err(|fault| fault.file(path.display().to_string()))?;
    Ok((Some(read), Some(crc)))
}

/// No file is where a strategy is wanted: a word alone may have been meant for a layout. Local.
#[must_use]
pub fn no_strategy(path: &Path) -> Fault {
    let absent = absent(path);
    let typed = path.to_string_lossy();
    let layout = "files are wanted, or a layout, as dp=2,tp=4,pp=2";
    Fault {
        kind: Kind::Strategy,
        hint: match typed.contains(['/', '.']) {
            true => absent.hint,
            false => Some(layout.to_owned()),
        },
        ..absent
    }
}

/// The CRC of what the files say, one after the other.
fn checksum_of_all(files: &[(String, Arc<Vec<u8>>)]) -> u64 {
    let mut known: HashMap<*const Vec<u8>, u64> = HashMap::new();
    let (mut whole, mut length) = (0, 0);
    for (_, bytes) in files {
        let own = known.entry(Arc::as_ptr(bytes));
        let own = *own.or_insert_with(|| residue(bytes));
        whole = shift(whole, bytes.len() as u64) ^ own;
        length += bytes.len() as u64;
    }
    finish(whole, length)
}

/// The files at `path` that fall to this process: those that share it list it once, and read each file once,
/// in turns. Collective; the inner result is this process's alone.
fn read_in_turn(world: &World, topology: &Topology, path: &Path) -> Result<Result<StrategyBytes>> {
    let views = Views::of(world, topology, path)?;
    let listed = views.leads(world).then(|| strategy_paths(path)).transpose();
    let listed: Vec<Option<Option<Vec<PathBuf>>>> = all_gather_agreed(world, listed)?;
    let told = views.told(world, &listed);
    let told = told.into_iter().filter_map(|(files, place, turns)| {
        let files = files.as_ref()?;
        Some(files.iter().skip(place).step_by(turns))
    });
    let mut mine = None;
    let read = told.map(read_files).try_for_each(|read| {
        mine.get_or_insert_with(Vec::new).extend(read?);
        Ok(())
    });
    Ok(read.map(|()| mine))
}

/// A strategy that is asked for, where no other process is asked. Local.
///
/// # Errors
/// [`Kind::Strategy`], [`Kind::Io`].
pub fn read_alone(input: &StrategyInput) -> Result<Strategy> {
    let path = input.typed();
    if let Some(bytes) = input.bytes() {
        return Ok(at_hand(path, bytes)?.of_shapes(input.shapes()));
    }
    let named = |fault: Fault| fault.file(path.display().to_string());
    let files = strategy_bytes(path)?.ok_or_else(|| no_strategy(path))?;
    let files: Vec<StrategyFile<'_>> = files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect();
    Strategy::read(&files).map_err(named)
}

/// A strategy that a file called `path` would hold.
fn at_hand(path: &Path, bytes: &[u8]) -> Result<Strategy> {
    let name = path.display().to_string();
    let file = StrategyFile { name: &name, bytes };
    Strategy::read(&[file]).map_err(|fault| fault.file(name.as_str()))
}

/// The files that all nodes together see: each has its own, where the disks are not shared.
/// Collective; `mine` is what this process has, or why it hasn't.
fn gather(world: &World, mine: Result<StrategyBytes>) -> Result<StrategyBytes> {
    let mut known: HashMap<*const Vec<u8>, u64> = HashMap::new();
    let mut hash_of = |bytes: &Arc<Vec<u8>>| {
        let known = known.entry(Arc::as_ptr(bytes));
        *known.or_insert_with(|| hash(bytes))
    };
    let mut own = None;
    let hashes = mine.map(|mine| {
        let files = own.insert(mine).as_ref()?;
        let hashed = files
            .iter()
            .map(|(name, bytes)| (name.clone(), hash_of(bytes)));
        Some(hashed.collect())
    });
    let seen: Vec<Option<Vec<(String, u64)>>> = all_gather_agreed(world, hashes)?;
    let mine = own.flatten();
    if seen.iter().all(Option::is_none) {
        return Ok(None);
    }
    // Each distinct content is sent once, by the lowest process that has it.
    let mut first: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    let mut sender: BTreeMap<u64, u32> = BTreeMap::new();
    for (process, files) in (0u32..).zip(&seen) {
        for (name, hash) in files.iter().flatten() {
            sender.entry(*hash).or_insert(process);
            let known = first.entry(name).or_insert((process, *hash));
            if known.1 != *hash {
                let message = format!(
                    "processes {} and {process} see different strategies here",
                    known.0
                );
                return Err(Fault::new(Kind::Differs, message).file(name.clone()));
            }
        }
    }
    let sent: BTreeMap<u64, Arc<Vec<u8>>> = mine
        .into_iter()
        .flatten()
        .map(|(_, bytes)| (hash_of(&bytes), bytes))
        .filter(|(hash, _)| sender.get(hash) == Some(&world.process()))
        .collect();
    let bytes = all_gather(world, &sent)?.into_iter().flatten();
    let bytes: BTreeMap<u64, Arc<Vec<u8>>> = bytes.collect();
    let files = first
        .iter()
        .filter_map(|(name, (_, hash))| Some(((*name).to_owned(), Arc::clone(bytes.get(hash)?))));
    Ok(Some(files.collect()))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The bytes of a strategy file, or of those of a directory. Local.
///
/// # Errors
/// [`Kind::Io`], [`Kind::Strategy`] for a directory without strategy files.
pub fn strategy_bytes(path: &Path) -> Result<StrategyBytes> {
    let paths = strategy_paths(path)?;
    paths.map(|paths| read_files(paths.iter())).transpose()
}

/// Reads files, and keeps equal ones once. Local.
fn read_files<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<(String, Arc<Vec<u8>>)>> {
    let mut known: HashMap<u64, Arc<Vec<u8>>> = HashMap::new();
    let read = paths.map(|path| {
        let mut bytes = ReadFile::open(path)?.read_all(STRATEGY_BYTES_MAX)?;
        if path.ends_with(NAME) {
            bytes = kept(path, &bytes)?;
        }
        let alike = known.entry(hash(&bytes)).or_default();
        if **alike != bytes {
            *alike = Arc::new(bytes);
        }
        Ok((path.display().to_string(), Arc::clone(alike)))
    });
    read.collect()
}

/// The strategy file at `path`, or those of the directory, or the manifest of a result. Local.
fn strategy_paths(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    match io::standing(path)? {
        Standing::Nothing => Ok(None),
        Standing::File => {
            refuse_weights(path)?;
            Ok(Some(vec![path.to_path_buf()]))
        }
        Standing::Directory | Standing::EmptyDirectory => {
            let manifest = path.join(NAME);
            if io::standing(&manifest)? == Standing::File {
                // A result is cut by what its manifest keeps.
                return Ok(Some(vec![manifest]));
            }
            let names = io::list(path)?;
            let files: Vec<PathBuf> = names
                .iter()
                .filter(|(name, directory)| {
                    !directory && (name.ends_with(".ckpt") || name.ends_with(".json"))
                })
                .map(|(name, _)| path.join(name))
                .collect();
            refuse_weights(path)?;
            if files.is_empty() {
                let fault = Fault::new(Kind::Strategy, "has no strategy files (.ckpt or .json)");
                return Err(fault.file(path.display().to_string()));
            }
            Ok(Some(files))
        }
    }
}
