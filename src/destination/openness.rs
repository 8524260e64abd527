//! How open the source is: its weights don't become readable by others because they are moved.

use crate::catalog::Catalog;
use crate::exchange::{Operation, World, agree, all_reduce};
use crate::fault::Result;
use crate::plan::reach::Reach;
use crate::store::io;
use std::path::Path;

/// For the group and for others: read a file, pass through a directory, and all that they may.
const CLASSES: [(u32, u32, u32); 2] = [(0o040, 0o010, 0o070), (0o004, 0o001, 0o007)];

/// The permissions that the group and others haven't on some file of the source: all of a class that
/// can't read it, or can't get to it through the directories of the source. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`], the same on every process.
pub(crate) fn denied(world: &World, base: &Path, catalog: &Catalog, reach: &Reach) -> Result<u32> {
    let mut closed = agree(world, closed(base, catalog, reach))?;
    all_reduce(world, &mut closed, Operation::Max)?;
    let classes = CLASSES.iter().zip(closed);
    let classes = classes.filter(|(_, closed)| *closed > 0);
    Ok(classes.fold(0, |denied, ((_, _, all), _)| denied | all))
}

/// Which classes are shut out of a file that this process owns: 0 or 1 each. Local.
fn closed(base: &Path, catalog: &Catalog, reach: &Reach) -> Result<[u64; 2]> {
    let mut closed = [0; 2];
    let mut note = |mode: u32, of_directory: bool| {
        for (closed, (read, pass, _)) in closed.iter_mut().zip(CLASSES) {
            let needed = if of_directory { pass } else { read };
            *closed |= u64::from(mode & needed == 0);
        }
    };
    let mut first = true;
    for (rank, files) in &catalog.ranks {
        if reach.owner(*rank) != Some(reach.process) {
            continue;
        }
        for file in files {
            let path = base.join(&file.path);
            note(io::mode(&path)?, false);
            if let Some(parent) = path.parent().filter(|parent| parent.starts_with(base)) {
                note(io::mode(or_here(parent))?, true);
            }
            if std::mem::take(&mut first) {
                note(io::mode(or_here(base))?, true);
            }
        }
    }
    Ok(closed)
}

fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}
