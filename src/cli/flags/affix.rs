//! `--strip-prefix` and `--add-prefix`: beginnings of a source's names.

use crate::plan::affix::Affixes;
use clap::Args;

/// How a source's names begin, and are to begin.
#[derive(Clone, Debug, Args)]
pub(crate) struct AffixArgs {
    /// Take this beginning from the names of the source's tensors, as `module.`; `_orig_mod.` is taken
    /// out of their middle, too. Given several times: one after another.
    #[arg(long, value_name = "P")]
    strip_prefix: Vec<String>,
    /// Then put this before all names but those of lm_head, as `model.`.
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    add_prefix: String,
}

impl AffixArgs {
    /// What they say.
    pub(crate) fn affixes(&self) -> Affixes {
        Affixes::new(self.strip_prefix.clone(), &self.add_prefix)
    }
}
