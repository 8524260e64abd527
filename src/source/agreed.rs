//! What several files of a checkpoint that tells its own layout must say alike: they are of one save.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use std::collections::HashMap;

/// Checks that all files that tell a thing tell the same. Local, the same on every process.
///
/// # Errors
/// [`Kind::Differs`] naming the second file, what it is, and what both say.
pub(super) fn check(catalog: &Catalog) -> Result<()> {
    let mut told: HashMap<&str, (&str, &str)> = HashMap::new();
    for file in catalog.ranks.values().flatten() {
        for (what, says) in &file.schema.held.agreed {
            let (first, due) = *told.entry(what).or_insert((&file.path, says));
            if due != says {
                let message = format!("{what} is {says}, and {due} in {first}");
                return Err(Fault::new(Kind::Differs, message)
                    .file(file.path.as_str())
                    .hint(HINT));
            }
        }
    }
    Ok(())
}

const HINT: &str = "bring the files of one save together; a tensor that differs may also be cut over the ranks in a way that \
                    isn't known here, and the trainer's own tools convert it; --verify none takes the first of each";
