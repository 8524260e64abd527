//! What one node sees of a source.

use crate::fault::Result;
use crate::source::position::Offered;
use crate::store::Directory;
use crate::store::io::ReadFile;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What one node sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// The path is one file; its name is the only one listed.
    pub(crate) single_file: bool,
    /// It tells its own layout.
    pub(crate) inner: Option<Inner>,
    /// Number of files that are left out because they are in the format asked for already.
    pub(crate) left: usize,
    /// For full weights: the index that lists the files.
    pub(crate) index: Option<String>,
    /// For every file of weights: those that the index lists.
    pub(crate) indexed: BTreeSet<String>,
    /// What is to be said of what was chosen.
    pub(crate) notes: Vec<String>,
    /// For each rank its files.
    pub(crate) ranks: BTreeMap<u32, Vec<Listed>>,
    /// For what tells its own layout: rank and path of files that it tells of and that aren't seen.
    pub(crate) absent: BTreeSet<(u32, String)>,
    /// For each rank's directory the paths of the weight files that are to be chosen from.
    pub(crate) offered: Offered,
}

/// A checkpoint that tells its own layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inner {
    /// Its format.
    pub(crate) format: Directory,
    /// Its directory inside the path: `""`, or with a `/` at the end.
    pub(crate) directory: String,
}

/// A file as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Path inside the base.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// What tells it from its copies ([`ReadFile::identity`]).
    pub(crate) identity: u64,
}

impl Listed {
    /// Looks at the file at `path` inside `base`. Local.
    pub(crate) fn new(base: &Path, path: String) -> Result<Listed> {
        let (size, identity) = ReadFile::glance(&base.join(&path))?;
        Ok(Listed {
            path,
            size,
            identity,
        })
    }

    /// Whether it is that file or a copy of it, as far as its size can tell.
    pub(crate) fn is_like(&self, other: &Listed) -> bool {
        (&self.path, self.size) == (&other.path, other.size)
    }
}

impl Inner {
    /// Whether this checkpoint in `path` has a file of which `is` holds. Local.
    ///
    /// # Errors
    /// As the format lists its files.
    pub(super) fn has_file(&self, path: &Path, is: impl Fn(&str) -> bool) -> Result<bool> {
        let files = self.format.list(&path.join(&self.directory))?;
        Ok(files.values().flatten().any(|file| is(file)))
    }
}
