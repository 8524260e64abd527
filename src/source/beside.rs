//! The strategy that the run which wrote weights, or its scripts, have left beside them.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::is_strategy;
use crate::store::io::{self, Standing};
use std::path::{Path, PathBuf};

/// Where a trainer leaves the strategies of all ranks.
const STRATEGY: &str = "strategy";

/// The strategy beside the rank directories in `path`, as far as this process sees it: the trainer's directory, in
/// them or beside them, or else one merged file. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(crate) fn beside(path: &Path) -> Result<Option<PathBuf>> {
    let above = io::room(path);
    for place in [above.join(STRATEGY), path.join(STRATEGY)] {
        if io::standing(&place)? == Standing::Directory {
            return Ok(Some(place));
        }
    }
    for room in [path, above] {
        if io::standing(room)? != Standing::Directory {
            continue;
        }
        let names = io::list(room)?.into_iter();
        let mut files = names.filter(|(name, folder)| !folder && is_strategy(name));
        if let (Some((name, _)), None) = (files.next(), files.next()) {
            return Ok(Some(room.join(name)));
        }
    }
    Ok(None)
}

/// `fault` of the rank directories in `path`, which have no strategy, with word of the one beside them. Local.
pub(super) fn told_beside(fault: Fault, path: &Path) -> Fault {
    match (fault.kind, beside(path)) {
        (Kind::Strategy, Ok(Some(found))) => Fault {
            hint: Some(format!(
                "give --src-strategy {}, which lies beside them",
                found.display()
            )),
            ..fault
        },
        _ => fault,
    }
}
