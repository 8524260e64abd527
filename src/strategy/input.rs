//! A strategy as it was asked for.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The full shape of a weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullShape {
    /// Its sizes.
    pub sizes: Vec<u64>,
    /// Whether its rows are a vocabulary's, which may have been padded or cut.
    pub padded: bool,
    /// Whether every checkpoint of the model has it: not a job's counts of its experts' loads.
    pub due: bool,
}

/// A strategy that lies in files, or one that was made when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyInput {
    /// Where it lies, or what was typed in its place.
    typed: PathBuf,
    /// What a file of it would hold; none if there are files.
    made: Option<Arc<[u8]>>,
    /// Full shapes of weights that are known beside it, by name.
    shapes: Arc<BTreeMap<String, FullShape>>,
}

impl StrategyInput {
    /// The strategy that a file with these `bytes` would hold, the same on every process; messages call it
    /// as it was `typed`.
    #[must_use]
    pub fn made(typed: impl Into<PathBuf>, bytes: Vec<u8>) -> StrategyInput {
        StrategyInput {
            typed: typed.into(),
            made: Some(bytes.into()),
            shapes: Arc::default(),
        }
    }

    /// The same for weights of these full `shapes`.
    #[must_use]
    pub fn of_shapes(self, shapes: Arc<BTreeMap<String, FullShape>>) -> StrategyInput {
        StrategyInput { shapes, ..self }
    }

    /// What was typed.
    #[must_use]
    pub fn typed(&self) -> &Path {
        &self.typed
    }

    /// Where its files are, if it lies in files.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.made.is_none().then_some(self.typed.as_path())
    }

    /// What its file would hold, if there is none.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.made.as_deref()
    }

    /// Full shapes of its weights, as far as they are known.
    #[must_use]
    pub fn shapes(&self) -> &BTreeMap<String, FullShape> {
        &self.shapes
    }
}

impl<P: Into<PathBuf>> From<P> for StrategyInput {
    fn from(path: P) -> StrategyInput {
        StrategyInput {
            typed: path.into(),
            made: None,
            shapes: Arc::default(),
        }
    }
}

impl fmt::Display for StrategyInput {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.typed.display().fmt(out)
    }
}
