//! A family's training network, as its table has it: which tensors it holds and what cuts them.

use super::choices::Scheme;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The training network of a family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The names that it has.
    pub names: Scheme,
    /// The classes of networks that it stands for, by the names a configuration gives them.
    pub architectures: Vec<String>,
    /// Whether only its layouts are known: the trainer has no such network to train.
    #[serde(default)]
    pub only_layouts: bool,
    /// Keys of a trainer's `model_config` that mean a key of config.json.
    #[serde(default)]
    pub spelled: BTreeMap<String, String>,
    /// What the network takes where nothing is said.
    #[serde(default)]
    pub defaults: Map<String, Value>,
    /// What its usual job says: taken where there is no trainer's configuration.
    #[serde(default)]
    pub usual: Map<String, Value>,
    /// Numbers that the network takes where nothing is said, which a user is told.
    #[serde(default)]
    pub assumed: Map<String, Value>,
    /// Whether all layers have experts, whatever config.json says.
    #[serde(default)]
    pub experts_everywhere: bool,
    /// The number that follows from `multiple_of` and `ffn_dim_multiplier` where it isn't given.
    #[serde(default)]
    pub feed_forward: Option<String>,
    /// What can't be derived.
    #[serde(default)]
    pub refuses: Vec<Refusal>,
}

/// Something that can't be derived.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// When: conditions as in [`Trained::when`].
    pub when: String,
    /// The key to name.
    pub key: String,
    /// Why.
    pub why: String,
}

/// What cuts a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Its rows (or its only dimension): tensor parallel.
    Column,
    /// Its columns: tensor parallel. A bias beside it is whole.
    Row,
    /// Nothing.
    Whole,
    /// The vocabulary, on the first stage.
    Embedding,
    /// The vocabulary, on the last stage.
    Head,
    /// The vocabulary, on the last stage, by all ranks of it.
    HeadByAll,
    /// Nothing: the weights of a layer's norm.
    Norm,
    /// Nothing: the weights of the norm after the last layer.
    LastNorm,
    /// Nothing, on the mesh of the experts.
    Router,
    /// Its rows: expert parallel.
    Expert,
    /// Nothing, on a mesh of one axis.
    Balance,
}

impl Cut {
    /// Whether its rows are the vocabulary's.
    #[must_use]
    pub fn is_of_vocabulary(self) -> bool {
        matches!(self, Cut::Embedding | Cut::Head | Cut::HeadByAll)
    }
}

/// How the training network holds a tensor: `"column"`, or
/// `{"by": "column", "when": "key & !key & key=word"}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Spelled")]
pub struct Trained {
    /// What cuts it.
    pub by: Cut,
    /// When it is there, in place of the rule's own `when`: conditions joined by `&`; none: always.
    pub when: Option<String>,
    /// Whether it isn't trained: it has no optimizer states and no optimizer shard.
    pub untrained: bool,
    /// Whether the optimizer Muon takes it out of the optimizer shard.
    pub muon_keeps_whole: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Plain(Cut),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    by: Cut,
    #[serde(default)]
    when: Option<String>,
    #[serde(default)]
    untrained: bool,
    #[serde(default)]
    muon_keeps_whole: bool,
}

impl From<Spelled> for Trained {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Plain(by) => Trained {
                by,
                when: None,
                untrained: false,
                muon_keeps_whole: false,
            },
            Spelled::Full(full) => Trained {
                by: full.by,
                when: full.when,
                untrained: full.untrained,
                muon_keeps_whole: full.muon_keeps_whole,
            },
        }
    }
}
