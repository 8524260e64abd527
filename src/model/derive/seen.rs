//! What the names of a checkpoint's tensors tell of the network that has them.

use crate::model::choices::Scheme;
use crate::model::tied::TIED;
use crate::plan::lora_tied::is_head;
use crate::plan::state::MASTER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What names tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Whose names they are; none for names of another network than those known.
    pub names: Option<Scheme>,
    /// What the trainer's configuration says of such a network, by key.
    pub keys: Vec<(String, bool)>,
    /// These are all of a checkpoint's names, and none is of a layer that predicts further tokens.
    #[serde(default)]
    pub without_further: bool,
    /// Rows of what has one for each word, where these are said to be others than the model's.
    #[serde(default)]
    pub vocabulary_rows: Option<u64>,
    /// Masters of weights in 32 bits are there.
    #[serde(default)]
    pub masters: bool,
}

/// The key for query, key and value in one.
pub const JOINED: &str = "qkv_concat";
/// How the names of layers that predict further tokens begin, and the key for how many there are.
const FURTHER: (&str, &str) = ("mtp.layers.", "mtp_num_layers");
/// The key for the rows of the vocabulary.
const VOCABULARY: &str = "vocab_size";
/// The key for latent projections in one.
pub const LATENT: &str = "mla_qkv_concat";

type Telling = (&'static str, Scheme, Option<(&'static str, bool)>);

/// What a model of Hugging Face has whose other names are those of its network at MindSpore.
const FOREIGN: &str = "transformer.embedding.word_embeddings.";

/// What tells: a part of a name, whose it is, and a key of the configuration with its value.
const TELLING: [Telling; 18] = [
    // Before those of the mcore network, of whose names these have a part.
    ("transformer.encoder.", Scheme::Legacy, None),
    ("transformer.output_layer.", Scheme::Legacy, None),
    (
        ".self_attention.wq.weight",
        Scheme::Legacy,
        Some((JOINED, false)),
    ),
    (
        ".self_attention.query_key_value.weight",
        Scheme::Legacy,
        Some((JOINED, true)),
    ),
    ("decoder.layers.", Scheme::Mcore, None),
    ("embedding.word_embeddings.", Scheme::Mcore, None),
    ("output_layer.weight", Scheme::Mcore, None),
    (".self_attention.linear_qkv.", Scheme::Mcore, None),
    (
        ".self_attention.linear_kvb.",
        Scheme::Mcore,
        Some((LATENT, true)),
    ),
    (
        ".self_attention.linear_kv_down_proj.",
        Scheme::Mcore,
        Some((LATENT, false)),
    ),
    ("model.tok_embeddings.", Scheme::Legacy, None),
    ("model.norm_out.", Scheme::Legacy, None),
    (
        ".attention.wq.weight",
        Scheme::Legacy,
        Some((JOINED, false)),
    ),
    (
        ".attention.w_qkv.weight",
        Scheme::Legacy,
        Some((JOINED, true)),
    ),
    (
        ".attention.wq.bias",
        Scheme::Legacy,
        Some(("qkv_has_bias", true)),
    ),
    (
        ".attention.w_qkv.bias",
        Scheme::Legacy,
        Some(("qkv_has_bias", true)),
    ),
    (".feed_forward.w2.", Scheme::Legacy, None),
    (".attention_norm.", Scheme::Legacy, None),
];

impl Seen {
    /// What these names tell.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Seen {
        let mut seen = Seen::default();
        let mut head = false;
        for name in names {
            head |= is_head(name);
            seen.masters |= name.starts_with(MASTER);
            if name.contains(FOREIGN) {
                return Seen::default();
            }
            for (part, scheme, key) in &TELLING {
                if !name.contains(part) {
                    continue;
                }
                seen.names.get_or_insert(*scheme);
                if let Some((key, value)) = key
                    && !seen.keys.iter().any(|(known, _)| known == key)
                {
                    seen.keys.push(((*key).to_owned(), *value));
                }
            }
        }
        // In files of its own it is one, whatever the model says; at Hugging Face it may lie beside an embedding that it is.
        if head && seen.names.is_some() {
            seen.rejoin(TIED, false);
        }
        seen
    }

    /// What these names tell, which are all that a checkpoint has.
    pub fn of_all<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Seen {
        Seen {
            without_further: !names.clone().any(|name| name.contains(FURTHER.0)),
            ..Seen::of(names)
        }
    }

    /// The same of a network for which `key` says whether tensors are in one.
    pub fn rejoin(&mut self, key: &str, joined: bool) {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), joined));
    }

    /// The keys as a configuration has them.
    pub(super) fn configuration(&self) -> Map<String, Value> {
        let keys = self.keys.iter();
        let keys = keys.map(|(key, value)| (key.clone(), Value::Bool(*value)));
        let none = self
            .without_further
            .then(|| (FURTHER.1.to_owned(), 0.into()));
        let rows = self
            .vocabulary_rows
            .map(|rows| (VOCABULARY.to_owned(), rows.into()));
        keys.chain(none).chain(rows).collect()
    }
}
