//! What a checkpoint has beside tensors, as it lies: never looked into where it is only carried.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A part of the path that a flat name was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPart {
    /// A key of a mapping.
    Key(String),
    /// A place in a list.
    Place(u64),
}

/// Values of a distributed checkpoint of PyTorch.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Values {
    /// The bytes of each, by name: an archive of `torch.save`.
    pub archives: BTreeMap<String, Vec<u8>>,
    /// The paths that names of tensors and values were made of; none for one that is its own path.
    pub paths: BTreeMap<String, Vec<PathPart>>,
}

impl Values {
    /// Those that `keeps` says, under the names that `written` gives them.
    #[must_use]
    pub fn selected(
        &self,
        keeps: impl Fn(&str) -> bool,
        written: impl Fn(&str) -> Option<String>,
    ) -> Values {
        let kept = self.archives.iter().filter(|(name, _)| keeps(name));
        let called = |name: &String| written(name).unwrap_or_else(|| name.clone());
        let archives = kept.map(|(name, bytes)| (called(name), bytes.clone()));
        let archives = archives.collect();
        // A name that is another now is no longer made of that path.
        let same = self
            .paths
            .iter()
            .filter(|(name, _)| written(name).is_none());
        let paths = same.map(|(name, path)| (name.clone(), path.clone()));
        Values {
            archives,
            paths: paths.collect(),
        }
    }
}

/// Short: what it stands for is compared, not shown.
impl fmt::Debug for Values {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        write!(
            out,
            "{} values {:016x}",
            self.archives.len(),
            hasher.finish()
        )
    }
}
