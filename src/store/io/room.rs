//! Where a file is, by its path alone.

use std::path::Path;

/// The directory that `path` is in; the current one of a name alone.
#[must_use]
pub fn room(path: &Path) -> &Path {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.unwrap_or(Path::new("."))
}
