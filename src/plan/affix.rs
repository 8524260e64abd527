//! Names of a source that a wrapper has given a beginning, or that lack one.

use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What wrappers of PyTorch put into names, in the middle too: torch.compile, FSDP, checkpointing of activations.
pub const WITHIN: [&str; 3] = [
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
];
/// Beginning of the names of a head, which lies beside what has the beginning that is added.
const HEAD: &str = "lm_head.";

/// A beginning to take away, and one to put there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affixes {
    /// Taken from names that begin with it; of [`WITHIN`] every one in a name.
    pub strip: String,
    /// Then put before all names but those of `lm_head`, that don't begin with it.
    pub add: String,
}

impl Affixes {
    /// What a name becomes.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        let mut rest = name.to_owned();
        if WITHIN.contains(&&*self.strip) {
            rest = rest.replace(&self.strip, "");
        } else if let Some(stripped) = name.strip_prefix(&self.strip) {
            rest = stripped.to_owned();
        }
        if rest.starts_with(HEAD) || rest.starts_with(&self.add) {
            return rest;
        }
        format!("{}{rest}", self.add)
    }

    /// Gives the tensors of `inventory` their new names; they are found under the old ones.
    ///
    /// # Errors
    /// [`Kind::Ambiguous`] if two get the same name.
    pub fn apply(&self, inventory: &mut Inventory) -> Result<()> {
        if *self == Affixes::default() {
            return Ok(());
        }
        let mut renamed = BTreeMap::new();
        for (name, tensor) in std::mem::take(&mut inventory.tensors) {
            let new: Arc<str> = self.of(&name).into();
            if renamed.insert(new.clone(), tensor).is_some() {
                let message = format!("another tensor would be called '{new}', too");
                let fault = Fault::new(Kind::Ambiguous, message).tensor(&*name);
                return Err(fault.hint("do --strip-prefix and --add-prefix fit the names?"));
            }
        }
        inventory.tensors = renamed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_away_and_adds() {
        for (strip, add, name, new) in [
            ("module.", "", "module.model.x", "model.x"),
            ("module.", "", "model.module.x", "model.module.x"),
            ("_orig_mod.", "", "_orig_mod.a._orig_mod.b", "a.b"),
            ("", "model.", "layers.0.x", "model.layers.0.x"),
            ("", "model.", "lm_head.weight", "lm_head.weight"),
            (
                "model.language_model.",
                "model.",
                "model.language_model.x",
                "model.x",
            ),
            ("", "", "x", "x"),
        ] {
            let affixes = Affixes {
                strip: strip.into(),
                add: add.into(),
            };
            assert_eq!(affixes.of(name), new, "{strip} {add}");
        }
    }
}
