//! A family's table, as its JSON file has it.
//!
//! docs/formats.md explains the form for those who write one.

use super::choices::{Experts, Partial, Scheme};
use super::expression::Numbers;
use super::layer_kinds::{LayersOf, is_of};
use super::training::{Trained, Training};
use crate::fault::{Fault, Kind, Result};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The name and the text of each of these tables.
macro_rules! tables {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("families/", $name, ".json")))),*]
    };
}

/// The tables that are built in.
const FILES: &[(&str, &str)] = tables![
    "llama",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "mixtral",
    "glm4",
    "glm4_moe",
    "chatglm",
    "glm",
    "telechat",
    "telechat3",
    "telechat3_moe",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
];

/// How the models of a family are made on both sides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Its name.
    pub family: String,
    /// Other names of it.
    #[serde(default)]
    pub also: Vec<String>,
    /// What a reader should know.
    #[serde(default)]
    pub about: String,
    /// The `model_type` of its config.json files.
    pub model_types: Vec<String>,
    /// The names that its usual training job has.
    pub usual_names: Scheme,
    /// How its usual training job keeps experts; none: stacked.
    #[serde(default)]
    pub usual_experts: Option<Experts>,
    /// Short names for numbers, as expressions over config.json's keys.
    pub numbers: BTreeMap<String, String>,
    /// Which layers have experts; none: no layer has.
    #[serde(default)]
    pub experts_in: Option<ExpertsIn>,
    /// Kinds of layers, by names that conditions (`when`) may have: of each, the ways in which config.json may tell
    /// them, of which the first counts that it has.
    #[serde(default)]
    pub layer_kinds: BTreeMap<String, Vec<LayersOf>>,
    /// The runs of layers.
    pub blocks: Vec<Block>,
    /// The tensors.
    pub tensors: Vec<Rule>,
    /// Tensors that only the Hugging Face side has.
    #[serde(default)]
    pub only_hf: Vec<OnlyHf>,
    /// Tensors that only the training network has.
    #[serde(default)]
    pub only_ms: Vec<OnlyMs>,
    /// Its training network; none: how that cuts its tensors isn't known.
    #[serde(default)]
    pub training: Option<Training>,
    /// Why that isn't known.
    #[serde(default)]
    pub not_derived: Option<String>,
}

fn one() -> u64 {
    1
}

/// Which layers have experts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsIn {
    /// The first that may have.
    pub from: String,
    /// Of those, every n-th one: layer l with (l + `counted_from`) mod n = 0.
    pub every: String,
    /// The number of the first layer, as `every` counts them: 1 for Qwen's `decoder_sparse_step`, 0 for DeepSeek's
    /// `moe_layer_freq`.
    #[serde(default = "one")]
    pub counted_from: u64,
    /// Name of a list of layers that have none.
    #[serde(default)]
    pub except: String,
}

/// A run of layers and the beginnings of their tensors' names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// First layer.
    pub from: String,
    /// Layer after the last.
    pub to: String,
    /// Whether these are layers for predicting further tokens. They may all be absent.
    #[serde(default)]
    pub mtp: bool,
    /// Beginning of the names at Hugging Face.
    pub hf: String,
    /// Beginning of the legacy names.
    #[serde(default)]
    pub legacy: Option<String>,
    /// Beginning of the mcore names.
    #[serde(default)]
    pub mcore: Option<String>,
}

/// Where a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Within {
    /// Every layer.
    Layer,
    /// Layers without experts.
    Dense,
    /// Layers with experts.
    Moe,
    /// Layers for predicting further tokens.
    Mtp,
}

/// How a tensor is made of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Make {
    /// Query, key and value: separate or in one.
    Qkv,
    /// Gate and up: separate or in one.
    GateUp,
    /// The same matrices of all experts.
    Experts,
    /// The rows of several Hugging Face tensors, those of the first before those of the next, in one.
    Rows,
    /// The columns of several Hugging Face matrices, those of the first before those of the next, in one.
    Columns,
    /// One Hugging Face tensor whose rows are blocks, each cut into parts: a tensor a part.
    Blocks,
}

/// Tensors of both sides that belong together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it applies; none: once.
    #[serde(default, rename = "in")]
    pub within: Option<Within>,
    /// How they are made of each other; none: they are the same.
    #[serde(default)]
    pub make: Option<Make>,
    /// How the training network cuts them; none: it hasn't got them.
    #[serde(default)]
    pub cut: Option<Trained>,
    /// Names at Hugging Face, each with its shape: `.mlp.up_proj.weight [ffn, hidden]`.
    pub hf: Names,
    /// The one Hugging Face tensor that has these below each other, in their order; none: each is one.
    #[serde(default)]
    pub hf_joined: Option<String>,
    /// For `experts`: the one Hugging Face tensor that may have these for all experts, `[experts, rows, columns]`,
    /// in their order below each other.
    #[serde(default)]
    pub hf_all: Option<String>,
    /// Other Hugging Face names that are accepted when read.
    #[serde(default)]
    pub hf_also: Vec<String>,
    /// Legacy names.
    #[serde(default)]
    pub legacy: Option<Side>,
    /// mcore names.
    #[serde(default)]
    pub mcore: Option<Side>,
    /// Other MindSpore names that are accepted when read.
    #[serde(default)]
    pub also: Vec<String>,
    /// When the tensors are there: keys of config.json that must be true (`!key`: must not be), joined
    /// by `&`. `mla_qkv_concat` and `experts_3d` are what `--mla joined` and `--experts stacked-3d` say; a kind of
    /// layers is true in these.
    #[serde(default)]
    pub when: Option<String>,
    /// Kept in its own element type whatever is asked for.
    #[serde(default)]
    pub keeps_dtype: bool,
    /// For `blocks`: the number of blocks.
    #[serde(default)]
    pub blocks: Option<String>,
    /// For `blocks`: the parts (by position) whose even rows come first, then the odd ones.
    #[serde(default)]
    pub even_odd: Vec<usize>,
}

/// One name or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Names {
    /// As a list.
    #[must_use]
    pub fn list(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }
}

/// The MindSpore side of a rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Side {
    /// Whatever is chosen.
    Names(Names),
    /// In one, or separate.
    Choice {
        /// In one tensor, fused or stacked.
        joined: Names,
        /// Separate.
        separate: Names,
    },
}

/// A tensor that MindSpore's side doesn't have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlyHf {
    /// Where it applies; none: once.
    #[serde(default, rename = "in")]
    pub within: Option<Within>,
    /// Its name.
    pub hf: String,
    /// The name of the tensor that it is a copy of, written again by export; none: nothing is lost
    /// without it.
    #[serde(default)]
    pub copy_of: Option<String>,
    /// Key of config.json that must be true.
    #[serde(default)]
    pub when: Option<String>,
}

/// A tensor that only the training network has, of its names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlyMs {
    /// Where it is; none: once.
    #[serde(default, rename = "in")]
    pub within: Option<Within>,
    /// Its mcore name and shape.
    pub mcore: String,
    /// How it is cut.
    pub cut: Trained,
}

impl Family {
    /// Reads a table.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it isn't of the form.
    pub fn parse(bytes: &[u8]) -> Result<Family> {
        serde_json::from_slice(bytes).map_err(Family::not_of_the_form)
    }

    /// What to say of a table that isn't one.
    pub(crate) fn not_of_the_form(why: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Corrupt, format!("is no family table: {why}"))
            .hint("`shardloom families --print llama` shows one, docs/formats.md explains the form")
    }

    /// The tables that are built in.
    ///
    /// # Errors
    /// Never: a test reads them all.
    pub fn built_in() -> Result<Vec<Family>> {
        static TABLES: OnceLock<Result<Vec<Family>>> = OnceLock::new();
        let parsed = || {
            let tables = FILES.iter();
            tables
                .map(|(name, text)| {
                    Family::parse(text.as_bytes()).map_err(|fault| fault.file(*name))
                })
                .collect()
        };
        TABLES.get_or_init(parsed).clone()
    }

    /// The text of the built-in table of this name; none if there is no such table.
    ///
    /// # Errors
    /// Never: a test reads them all.
    pub fn text(name: &str) -> Result<Option<&'static str>> {
        let all = Family::built_in()?;
        let place = all.iter().position(|family| family.is_called(name));
        Ok(place
            .and_then(|place| FILES.get(place))
            .map(|(_, text)| *text))
    }

    /// Whether layer `layer` has experts at Hugging Face.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if config.json lacks a number.
    pub(super) fn has_experts(&self, numbers: &Numbers, layer: u64) -> Result<bool> {
        let Some(experts) = &self.experts_in else {
            return Ok(false);
        };
        let (from, every) = (
            numbers.value(&experts.from)?,
            numbers.value(&experts.every)?,
        );
        Ok(layer >= from
            && (layer + experts.counted_from).is_multiple_of(every.max(1))
            && !numbers.list(&experts.except).contains(&layer))
    }

    /// A model's numbers with the kinds that layer `layer` is of; `further`: it predicts further tokens.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if config.json doesn't tell the kinds of its layers.
    pub(super) fn numbers_of<'a>(
        &self,
        numbers: &'a Numbers,
        layer: u64,
        further: bool,
    ) -> Result<Cow<'a, Numbers>> {
        let mut own = Cow::Borrowed(numbers);
        for (kind, ways) in &self.layer_kinds {
            let is = is_of(kind, ways, numbers, layer, further)?;
            own = Cow::Owned(own.into_owned().with(kind, is));
        }
        Ok(own)
    }

    /// What its usual training job has, as far as the table says.
    #[must_use]
    pub fn usual(&self) -> Partial {
        Partial {
            names: Some(self.usual_names),
            experts: self.usual_experts,
            ..Partial::default()
        }
    }

    /// Whether `name` is one of its names.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.family == name || self.also.iter().any(|other| other == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_in_the_folder_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/families");
        let files = crate::store::io::list(folder.as_ref()).unwrap();
        let built_in: BTreeMap<String, &str> = FILES
            .iter()
            .map(|(name, text)| (format!("{name}.json"), *text))
            .collect();
        assert!(
            files.iter().all(|(file, _)| built_in.contains_key(file)),
            "{files:?}"
        );
    }

    /// DeepSeek's own code: `layer >= first_k_dense_replace and layer % moe_layer_freq == 0`; Qwen's:
    /// `(layer + 1) % decoder_sparse_step == 0`.
    #[test]
    fn each_network_counts_its_layers_with_experts_in_its_own_way() {
        for (name, config, layers) in [
            (
                "deepseek_v3",
                r#"{"first_k_dense_replace": 1, "moe_layer_freq": 2}"#,
                [2, 4],
            ),
            (
                "telechat3_moe",
                r#"{"first_k_dense_replace": 2, "moe_layer_freq": 2}"#,
                [2, 4],
            ),
            ("qwen3_moe", r#"{"decoder_sparse_step": 2}"#, [1, 3]),
        ] {
            let config: serde_json::Value = serde_json::from_str(config).unwrap();
            let numbers = Numbers::new(&BTreeMap::new(), config.as_object().unwrap());
            let all = Family::built_in().unwrap();
            let family = all.iter().find(|family| family.is_called(name)).unwrap();
            let has = |layer: &u64| family.has_experts(&numbers, *layer).unwrap();
            assert_eq!((0..5).filter(has).collect::<Vec<_>>(), layers, "{name}");
        }
    }

    #[test]
    fn built_in_tables_are_of_the_form() {
        for family in Family::built_in().unwrap() {
            for rule in &family.tensors {
                let sides = [&rule.legacy, &rule.mcore];
                assert!(sides.iter().any(|s| s.is_some()), "{rule:?}");
                for name in rule.hf.list() {
                    assert!(name.ends_with(']'), "{name} has no shape");
                }
            }
        }
    }
}
