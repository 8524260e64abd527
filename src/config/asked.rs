//! What a path holds, as the trainer sees it, and what there is to do with it.

/// What a path holds, by its shape alone, as the trainer decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file, in no rank directory.
    File,
    /// A file in a rank directory.
    RankFile,
    /// A directory of rank directories.
    Ranks,
    /// A directory of full weights.
    Complete,
    /// A directory of full weights under Hugging Face names.
    HuggingFace,
    /// A directory of checkpoint 2.0, which tells its own layout.
    Iteration,
}

/// What there is to do before the job starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the job can load it as it is.
    None,
    /// Full weights have to be cut.
    Split,
    /// Shards have to be brought into another layout, if it is another one.
    Reshard,
    /// Names have to be mapped, which the trainer does by itself.
    Import,
}

impl Action {
    /// Its name in the JSON result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::Split => "split",
            Action::Reshard => "reshard",
            Action::Import => "import",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Action::None | Action::Import => "nothing to do",
            action => action.name(),
        })
    }
}

/// Weights that are asked for, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As the configuration gives it.
    pub path: std::path::PathBuf,
    /// The key that gives it.
    pub key: &'static str,
}

impl Asked {
    /// Whether the path is one that shipped configurations have in place of a real one.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        let text = self.path.to_string_lossy();
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        matches!(parts[..], ["path", "to", ..] | ["path" | "your", ..])
    }
}
