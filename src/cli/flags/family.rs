//! A model's family, and the choices that its table can't tell.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::name_map::family_table;
use crate::fault::Result;
use crate::model::{
    CONFIG, Choices, Experts, Family, Fusion, Given, Latent, Numbers, Scheme, Spelled, described,
    quantised_block,
};
use clap::Args;
use std::path::{Path, PathBuf};

pub(crate) use crate::model::spelled;

/// Which names the MindSpore side has.
pub(crate) const SCHEMES: &[Choice<Scheme>] = Scheme::WORDS;
/// How tensors are fused.
pub(crate) const FUSIONS: &[Choice<Fusion>] = Fusion::WORDS;
/// How experts are kept.
pub(crate) const EXPERTS: &[Choice<Experts>] = Experts::WORDS;
/// How latent projections are kept.
pub(crate) const LATENTS: &[Choice<Latent>] = Latent::WORDS;

/// What a family's table says, and what it can't tell.
#[derive(Clone, Debug, Args)]
pub(crate) struct FamilyArgs {
    /// The model's family; auto: what its config.json says.
    #[arg(long, default_value = "auto")]
    pub(crate) family: String,
    /// A family's table of your own, in the form of src/model/families, as JSON or YAML
    /// (docs/formats.md).
    #[arg(long, value_name = "FILE", conflicts_with = "family")]
    pub(crate) name_map: Option<PathBuf>,
    /// How query, key and value are laid out at MindSpore.
    #[arg(long, value_parser = choice(FUSIONS))]
    pub(crate) qkv: Option<Fusion>,
    /// How gate and up are laid out at MindSpore.
    #[arg(long, value_parser = choice(FUSIONS))]
    pub(crate) ffn: Option<Fusion>,
    /// How experts are kept at MindSpore.
    #[arg(long, value_parser = choice(EXPERTS))]
    pub(crate) experts: Option<Experts>,
    /// How the latent projections of DeepSeek-V3 are kept at MindSpore.
    #[arg(long, value_parser = choice(LATENTS))]
    pub(crate) mla: Option<Latent>,
    /// Tensor-parallel size that contiguous fused tensors are made for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub(crate) tp: Option<u64>,
}

impl FamilyArgs {
    /// Whether anything was said.
    pub(crate) fn is_given(&self) -> bool {
        let choice = self.qkv.is_some() || self.ffn.is_some() || self.experts.is_some();
        choice
            || self.mla.is_some()
            || self.tp.is_some()
            || self.name_map.is_some()
            || self.family != "auto"
    }

    /// What was said, with these names.
    pub(crate) fn given(&self, names: Option<Scheme>) -> Given {
        Given {
            names,
            qkv: self.qkv,
            ffn: self.ffn,
            experts: self.experts,
            mla: self.mla,
            tp: self.tp,
        }
    }

    /// The table and the numbers for the model described in `directory`.
    pub(crate) fn model(&self, directory: &Path) -> Result<(Family, Numbers)> {
        let table = self.name_map.as_deref().map(family_table).transpose()?;
        described(directory, &self.family, table)
    }

    /// All choices: what was said, and what the usual job of `family` has.
    pub(crate) fn choices(&self, family: &Family, names: Option<Scheme>) -> Choices {
        let given = self.given(names).or(family.usual());
        given.complete(family.usual_names)
    }
}

/// Rows and columns that share a scale in the model that `directory` describes by these `numbers`.
///
/// # Errors
/// As [`quantised_block`], naming the file.
pub(crate) fn block(directory: &Path, numbers: &Numbers) -> Result<Option<[u64; 2]>> {
    let place = || directory.join(CONFIG).display().to_string();
    quantised_block(numbers).map_err(|fault| fault.file(place()))
}

/// A model's directory, for which its config.json stands, too.
pub(crate) fn model_directory(
    text: &str,
) -> std::result::Result<PathBuf, std::convert::Infallible> {
    let path = PathBuf::from(text);
    let is_config = path.ends_with(CONFIG) && path.is_file();
    let directory = path.parent().filter(|_| is_config);
    Ok(directory.map_or(path.clone(), |directory| {
        match directory.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => directory.to_owned(),
        }
    }))
}
