//! Which of a source's files a node's manifest lists, and that these have the tensors that were written.

use crate::catalog::{Entry, ShardFile};
use crate::fault::{Kind, Result};
use crate::job::verify::check_header;
use crate::source::Source;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Manifest, Placed};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What to do about a source that isn't as it was written.
pub(super) const CHANGED: &str = "`verify` on the source lists all that is damaged; if it was changed on purpose, --verify none \
                       takes it as it is";

/// What a node says of its manifest.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Word {
    /// CRC of what it says of the tensors.
    pub(super) tensors: u64,
    /// The files that are seen, and not in it.
    pub(super) untold: Vec<(u32, u32)>,
}

/// What `manifest` says of the files of `source` that this process's node sees; `tensors` is the CRC of what it says of
/// tensors. Local.
///
/// # Errors
/// [`Kind::Corrupt`] for a file whose header doesn't tell the tensors that were written.
pub(super) fn word(manifest: &Manifest, tensors: u64, source: &Source) -> Result<Word> {
    let told = manifest.files.iter().map(|file| (&*file.path, file));
    let told: HashMap<&str, &FileRecord> = told.collect();
    let (mut untold, mut checked) = (Vec::new(), HashSet::new());
    for (rank, files) in &source.catalog.ranks {
        if !source.reach.sees(*rank) {
            continue;
        }
        for (file, number) in files.iter().zip(0u32..) {
            // A file of another size is not the one that was written then.
            match told.get(&*file.path) {
                Some(record) if record.bytes == file.schema.size => {
                    if checked.insert((Arc::as_ptr(&file.schema), record.structure)) {
                        check_written(source, file, record, manifest.placed(record))?;
                    }
                }
                _ => untold.push((*rank, number)),
            }
        }
    }
    Ok(Word { tensors, untold })
}

/// Whether a file of the source has the tensors that were `placed` in it: a name with a changed byte is another tensor's,
/// which no digest tells of. Local.
///
/// # Errors
/// [`Kind::Corrupt`] naming the file.
fn check_written(
    source: &Source,
    file: &ShardFile,
    record: &FileRecord,
    placed: &[Placed],
) -> Result<()> {
    let as_written = |(entry, (name, ranges)): (&Entry, &Placed)| {
        let there = entry.segments.iter().map(|part| (part.start, part.end));
        *entry.name == **name && there.eq(ranges.iter().copied())
    };
    let entries = &file.schema.entries;
    if entries.len() == placed.len() && entries.iter().zip(placed).all(as_written) {
        return Ok(());
    }
    // What a directory tells of its files may be in another order, or under other names.
    let file = ReadFile::open(&source.base.join(&file.path))?;
    check_header(&file, record, placed).map_err(|fault| match fault.kind {
        Kind::Corrupt => fault
            .file(file.path().display().to_string())
            .hint(format!("nothing was put in place. {CHANGED}")),
        _ => fault,
    })
}
