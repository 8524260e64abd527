//! Checksums that a source's files carry of themselves, compared with the bytes that are there.

use crate::catalog::FileSchema;
use crate::fault::{Fault, Result};
use crate::source::found::Source;
use crate::store::Format;
use crate::store::formats::Seal;
use crate::store::io::ReadFile;
use std::ops::Range;
use std::path::Path;

/// Compares the files that fall to this process with the checksums that they carry; says which carry none, if
/// that is `told`. Local: reads them.
///
/// # Errors
/// [`crate::fault::Kind::Corrupt`] naming file, part and tensor; [`crate::fault::Kind::Io`].
pub(super) fn check(source: &Source, told: bool) -> Result<()> {
    let reach = &source.reach;
    let processes = reach.node_of.len().max(1);
    for (rank, files) in &source.catalog.ranks {
        for (number, file) in files.iter().enumerate() {
            let mine = match reach.all_see_all() {
                true => (*rank as usize + number) % processes == reach.process as usize,
                false => reach.owner(*rank) == Some(reach.process),
            };
            if mine && Format::may_be_sealed(&file.path, &file.schema.metadata) {
                check_file(&source.base.join(&file.path), Some(&file.schema), told)
                    .map_err(|fault| fault.rank(*rank))?;
            }
        }
    }
    Ok(())
}

/// Compares one file, of this structure if it is known, with the checksums that it carries. Local: reads it.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_file(path: &Path, schema: Option<&FileSchema>, told: bool) -> Result<()> {
    let file = ReadFile::open(path)?;
    let seals = Format::recognise(&file)?.seals(&file)?;
    if seals.is_empty() && told {
        tracing::warn!("{}: carries no CRC to check", path.display());
    }
    for seal in &seals {
        let checked = seal.check(&file);
        checked.map_err(|fault| named(fault, seal, schema))?;
    }
    Ok(())
}

/// `fault` with the first tensor that lies in the part that `seal` is of, if that is a part of a file.
pub(crate) fn named(fault: Fault, seal: &Seal, schema: Option<&FileSchema>) -> Fault {
    let Some(schema) = schema.filter(|_| seal.name.is_some()) else {
        return fault;
    };
    let entries = schema.entries.iter().enumerate();
    let mut inside = entries.filter(|(_, entry)| {
        let mut segments = entry.segments.iter();
        let within = |inner: &Range<u64>, outer: &Range<u64>| {
            inner.start >= outer.start && inner.end <= outer.end
        };
        segments.any(|part| seal.parts.iter().any(|sealed| within(part, &sealed.range)))
    });
    match inside.next() {
        Some((number, entry)) => {
            let part = schema.held.part(number);
            fault.tensor(part.map_or(&*entry.name, |part| &*part.of))
        }
        None => fault,
    }
}
