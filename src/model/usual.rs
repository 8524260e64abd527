//! A model brought in as its family's usual training job has it.

use super::described::described;
use super::import::Import;
use crate::fault::Result;
use std::path::Path;

impl Import {
    /// All of the model that `directory` describes, with the names and the fusing of its family's usual training job.
    /// Local.
    ///
    /// # Errors
    /// As [`described`].
    pub fn usual(directory: &Path) -> Result<Import> {
        let (family, numbers) = described(directory, "auto", None)?;
        Ok(Import {
            choices: family.usual().complete(family.usual_names),
            family,
            numbers,
            dtype: None,
            allow_missing: false,
            allow_extra: false,
            vocabulary_rows: None,
            as_one: false,
        })
    }
}
