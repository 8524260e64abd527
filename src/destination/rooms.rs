//! The directories inside a staging directory: a name is on the disk when the directory is that has it.

use crate::fault::Result;
use crate::store::io;
use std::collections::BTreeSet;
use std::path::Path;

/// Flushes the directories that have the files `inside` of `base`, and those above them, each once; `base`
/// itself not. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(super) fn flush<'a>(base: &Path, inside: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let mut rooms: BTreeSet<&Path> = BTreeSet::new();
    for path in inside {
        let above = path.ancestors().skip(1);
        rooms.extend(above.filter(|room| !room.as_os_str().is_empty()));
    }
    let mut rooms = rooms.into_iter();
    rooms.try_for_each(|room| io::sync_directory(&base.join(room)))
}
