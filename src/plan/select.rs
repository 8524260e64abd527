//! What of a source is written: names, views, and what becomes of tensors that the destination doesn't know.

use crate::view::Table;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What to do with a tensor that the destination's strategy doesn't know, or that the source's
/// doesn't and ranks hold differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Refuse to go on.
    #[default]
    Fail,
    /// Copy it as it is: the shard of source rank (destination rank mod source ranks), as MindSpore
    /// does.
    Copy,
    /// Leave it out, with a word.
    Drop,
}

/// Which names are read, and what they are called when written.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names with one of these beginnings are left out everywhere.
    pub filter_out_prefixes: Vec<String>,
    /// Name read → name written.
    pub written: BTreeMap<String, String>,
    /// Name written → name read: the other way round, where one name read is written several times.
    pub read: BTreeMap<String, String>,
    /// What each tensor written is made of; none: of itself, under its name written.
    pub view: Option<Table>,
}

impl Select {
    /// Whether a tensor of this name is read at all.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        !self
            .filter_out_prefixes
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// What the tensor read as `name` is called when written.
    pub(crate) fn written_name(&self, name: &Arc<str>) -> Arc<str> {
        self.written
            .get(&**name)
            .map_or_else(|| name.clone(), |written| written.as_str().into())
    }
}

/// What to say of beginnings that are to be left out and that none of `names` has.
pub(crate) fn idle<'a>(
    prefixes: &[String],
    names: impl Iterator<Item = &'a str> + Clone,
) -> Option<String> {
    let unmet = |prefix: &&String| !names.clone().any(|name| name.starts_with(prefix.as_str()));
    let idle: Vec<String> = prefixes.iter().filter(unmet).cloned().collect();
    (!idle.is_empty()).then(|| {
        let idle = idle.join(", ");
        format!("--filter-out-param-prefix {idle} leaves nothing out: no name begins so")
    })
}

/// How tensors outside the destination's strategy travel, and what becomes of those that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// As reshard: private ones are copied, the others fall under the choice.
    Reshard(Unmatched),
    /// As split: the same.
    Split(Unmatched),
    /// As unify: private ones and gradient accumulators are kept as rank 0 has them.
    Unify(Unmatched),
    /// As import and export: only what the view makes is written.
    View(Unmatched),
}

impl Leftovers {
    /// The choice.
    #[must_use]
    pub fn unmatched(self) -> Unmatched {
        match self {
            Leftovers::Reshard(unmatched)
            | Leftovers::Split(unmatched)
            | Leftovers::Unify(unmatched)
            | Leftovers::View(unmatched) => unmatched,
        }
    }
}
