//! Names of a source that a wrapper has given a beginning, or that lack one.

use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::state::state_and_tensor;
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

/// Beginnings to take away, and one to put there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affixes {
    /// Taken one after another from names that begin with it; of [`WITHIN`] every one in a name.
    pub strip: Vec<String>,
    /// Then put before all names but those of `lm_head`, that don't begin with it.
    pub add: String,
}

impl Affixes {
    /// Those that are given; what is none is left out, and a dot that lacks after a whole part is put there.
    #[must_use]
    pub fn new(mut strip: Vec<String>, add: &str) -> Affixes {
        strip.retain(|strip| !strip.is_empty());
        for strip in &mut strip {
            let dotted = format!("{strip}.");
            if WITHIN.contains(&&*dotted) {
                *strip = dotted;
            }
        }
        let add = match add {
            "" => String::new(),
            add => format!("{}.", add.trim_end_matches('.')),
        };
        Affixes { strip, add }
    }

    /// Whether names stay as they are.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Affixes::default()
    }

    /// The flags that mean them.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let strips = self.strip.iter();
        let mut flags: Vec<String> = strips.map(|s| format!("--strip-prefix {s}")).collect();
        if !self.add.is_empty() {
            flags.push(format!("--add-prefix {}", self.add));
        }
        flags
    }

    /// What a name becomes: an optimizer's states follow their tensors.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        let (state, tensor) = state_and_tensor(name);
        format!("{state}{}", self.of_tensor(tensor))
    }

    fn of_tensor(&self, name: &str) -> String {
        let mut rest = name.to_owned();
        for strip in &self.strip {
            if WITHIN.contains(&&**strip) {
                rest = rest.replace(strip, "");
            } else if let Some(stripped) = rest.strip_prefix(&**strip) {
                // No name begins with a dot: what was given is a whole part of it without its dot.
                rest = stripped.trim_start_matches('.').to_owned();
            }
        }
        if rest.starts_with(HEAD) || rest.starts_with(&self.add) {
            return rest;
        }
        format!("{}{rest}", self.add)
    }

    /// Gives the tensors of `inventory` their new names; they are found under the old ones. Gives what is to be said.
    ///
    /// # Errors
    /// [`Kind::Ambiguous`] if two get the same name.
    pub fn apply(&self, inventory: &mut Inventory) -> Result<Option<String>> {
        if self.are_none() {
            return Ok(None);
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
        let same = |(name, tensor): (&Arc<str>, &Arc<SourceTensor>)| **name == *tensor.name;
        let (same, others): (Vec<_>, Vec<_>) = inventory.tensors.iter().partition(|it| same(*it));
        let flags = self.flags().join(" ");
        if others.is_empty() {
            return Ok(Some(format!("{flags} changes no name")));
        }
        let begun = same
            .iter()
            .find(|(name, _)| state_and_tensor(name).1.starts_with(&self.add));
        let begun = begun.filter(|_| !self.add.is_empty());
        Ok(
            begun
                .map(|(name, _)| format!("{flags} leaves names that begin so as they are: {name}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_away_and_adds() {
        for (strip, add, name, new) in [
            (&["module."][..], "", "module.model.x", "model.x"),
            (&["module."], "", "model.module.x", "model.module.x"),
            (&["module"], "", "module.model.x", "model.x"),
            (&["_orig_mod."], "", "_orig_mod.a._orig_mod.b", "a.b"),
            (&["_orig_mod"], "", "a._orig_mod.b", "a.b"),
            (
                &["_orig_mod.", "module."],
                "",
                "module._orig_mod.a._orig_mod.b",
                "a.b",
            ),
            (&[], "model.", "layers.0.x", "model.layers.0.x"),
            (&[], "model", "layers.0.x", "model.layers.0.x"),
            (&[], "model.", "lm_head.weight", "lm_head.weight"),
            (
                &["model.language_model."],
                "model.",
                "model.language_model.x",
                "model.x",
            ),
            (&[""], "", "x", "x"),
            (&["module."], "", "adam_m.module.x", "adam_m.x"),
            (&[], "model.", "main_param.x", "main_param.model.x"),
            (
                &[],
                "model.",
                "adam_v.lm_head.weight",
                "adam_v.lm_head.weight",
            ),
        ] {
            let affixes = Affixes::new(strip.iter().map(ToString::to_string).collect(), add);
            assert_eq!(affixes.of(name), new, "{strip:?} {add}");
        }
    }
}
