//! Files without a manifest, compared with the checksums that they carry of themselves.

use crate::exchange::{Operation, Topology, World, agree, all_gather, all_reduce};
use crate::fault::{Kind, Result};
use crate::job::outcome::BadFile;
use crate::job::tally;
use crate::job::verify::found::{Found, look};
use crate::plan::reach::ExchangeMode;
use crate::source::seals::check_file;
use crate::source::{Reading, open, tells};
use crate::store::Format;
use crate::store::formats::Seal;
use crate::store::io::{self, ReadFile, Standing};
use crate::tensor::digest::checksum;
use std::path::Path;

/// What such a comparison has found.
#[derive(Default)]
pub(super) struct Told {
    /// Files that carry checksums.
    pub(super) checked: u64,
    /// Files of weights that carry none.
    pub(super) without: u64,
    /// Bytes of those that do.
    pub(super) read: u64,
    /// Those that are damaged.
    pub(super) bad: Vec<BadFile>,
}

/// Checks that the files are there that what lies at `path` tells of, and have what it says of them. Nothing is known
/// where it tells of none. Collective.
///
/// # Errors
/// The same on every process: as [`open`], naming the file.
fn check_told(world: &World, topology: &Topology, path: &Path) -> Result<()> {
    let mut told_of = [u64::from(agree(world, tells(path))?)];
    all_reduce(world, &mut told_of, Operation::Max)?;
    if told_of[0] == 0 {
        return Ok(());
    }
    let reading = Reading::checkpoint(path.to_path_buf(), None, None);
    let mode = ExchangeMode::default();
    match open(world, topology, &reading, None, mode, |_| false) {
        // Which of several files would be read is no question here.
        Err(fault) if fault.kind == Kind::Ambiguous => Ok(()),
        opened => opened.map(|_| ()),
    }
}

/// Compares the files at `path`, a directory or a file; none where there is a manifest, or not all files carry checksums.
/// Collective.
///
/// # Errors
/// The same on every process: [`Kind::Io`]; as [`check_told`].
pub(super) fn own_sums(world: &World, topology: &Topology, path: &Path) -> Result<Option<Told>> {
    let seen = agree(world, files(path))?;
    let mut told_of = [u64::from(seen.is_none())];
    all_reduce(world, &mut told_of, Operation::Max)?;
    let files = match seen {
        Some(files) if told_of[0] == 0 => files,
        _ => return Ok(None),
    };
    // Those that see the same share the work; else each node looks after what it sees.
    let sum = checksum(files.join("\0").as_bytes());
    let alike = all_gather(world, &sum)?.iter().all(|other| *other == sum);
    let node = topology.node_of.get(world.process() as usize).copied();
    let members = node.and_then(|node| topology.nodes.get(node as usize));
    let (index, of) = match members {
        Some(members) if !alike => {
            let index = members.iter().position(|member| *member == world.process());
            (index.unwrap_or_default(), members.len())
        }
        _ => (world.process() as usize, world.size() as usize),
    };
    let own = files.iter().skip(index).step_by(of.max(1));
    let mut told = Told::default();
    let looked = own
        .map(String::as_str)
        .try_for_each(|file| told.look(path, file));
    agree(world, looked)?;
    told.checked = tally::sum(world, told.checked)?;
    told.without = tally::sum(world, told.without)?;
    told.read = tally::sum(world, told.read)?;
    told.bad = all_gather(world, &told.bad)?
        .into_iter()
        .flatten()
        .collect();
    told.bad.sort();
    if told.bad.is_empty() {
        check_told(world, topology, path)?;
    }
    // Where some say nothing of themselves, the others' word isn't enough.
    let enough = told.checked > 0 && (told.without == 0 || !told.bad.is_empty());
    Ok(enough.then_some(told))
}

/// The files at `path`, by name inside it; none if a manifest tells of them. Local.
fn files(path: &Path) -> Result<Option<Vec<String>>> {
    match io::standing(path)? {
        Standing::File => return Ok(Some(vec![String::new()])),
        Standing::Directory => {}
        Standing::Nothing | Standing::EmptyDirectory => return Ok(Some(Vec::new())),
    }
    if !matches!(look(path)?, Found::Nothing) {
        return Ok(None);
    }
    let hidden = |name: &str| {
        let parts = name.split('/');
        parts.rev().take(1).any(|part| part.starts_with('.'))
    };
    let mut all = io::list_files(path)?;
    all.retain(|name| !hidden(name));
    Ok(Some(all))
}

impl Told {
    /// Looks at one file. Local.
    fn look(&mut self, path: &Path, name: &str) -> Result<()> {
        let path = match name {
            "" => path.to_path_buf(),
            name => path.join(name),
        };
        let Ok(file) = ReadFile::open(&path) else {
            return Ok(());
        };
        // What is no file of weights isn't looked at.
        let Ok(format) = Format::recognise(&file) else {
            return Ok(());
        };
        let bad = |fault: crate::fault::Fault| BadFile {
            file: match name {
                "" => path.display().to_string(),
                name => name.to_owned(),
            },
            tensor: fault.tensor,
            reason: fault.message,
        };
        let schema = match format.tells_itself() {
            true => format.read(&file).map(Some),
            false => Ok(None),
        };
        let schema = match schema {
            Ok(schema) => schema,
            Err(fault) if fault.kind == Kind::Io => return Err(fault),
            Err(fault) => {
                self.checked += 1;
                self.bad.push(bad(fault));
                return Ok(());
            }
        };
        let seals = format.seals(&file)?;
        let tensors = schema
            .as_ref()
            .is_none_or(|schema| !schema.entries.is_empty());
        // Those of other parts say nothing of the tensors.
        if seals.is_empty() || tensors && !seals.iter().any(Seal::is_of_tensors) {
            self.without += 1;
            return Ok(());
        }
        self.checked += 1;
        self.read += file.size();
        match check_file(&path, schema.as_ref(), false) {
            Err(fault) if fault.kind == Kind::Corrupt => self.bad.push(bad(fault)),
            other => other?,
        }
        Ok(())
    }
}
