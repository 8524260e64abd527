//! The choices that a name table can't tell.

use crate::fault::{Fault, Kind, Result};
use crate::job::metadata::OWN_KEYS;
use std::collections::BTreeMap;

/// Which names the MindSpore side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `model.layers.0.attention.wq.weight`.
    Legacy,
    /// `decoder.layers.0.self_attention.linear_qkv.weight`.
    Mcore,
}

/// How tensors that belong together are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fusion {
    /// Each by itself.
    Separate,
    /// In one, one after the other: of the whole tensor, or of each of `tp` shards.
    Contiguous,
    /// In one, taking turns: a key-value group each, or a row each.
    Interleaved,
}

/// How the experts of a layer are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Experts {
    /// All in one tensor, for grouped multiplication.
    Stacked,
    /// As the layout without grouped multiplication has them.
    Separate,
}

/// All choices, made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Names.
    pub names: Scheme,
    /// Query, key and value.
    pub qkv: Fusion,
    /// Gate and up.
    pub ffn: Fusion,
    /// Experts.
    pub experts: Experts,
    /// Tensor-parallel size that contiguous fused tensors were made for.
    pub tp: u64,
}

const NAMES: &str = "names";
const QKV: &str = "qkv";
const FFN: &str = "ffn";
const EXPERTS: &str = "experts";
const TP: &str = "tp";

/// A choice that files record by a word.
pub(super) trait Spelled: Copy + PartialEq + 'static {
    /// The words, and what they stand for.
    const WORDS: &'static [(&'static str, Self)];
}

impl Spelled for Scheme {
    const WORDS: &'static [(&'static str, Scheme)] =
        &[("legacy", Scheme::Legacy), ("mcore", Scheme::Mcore)];
}

impl Spelled for Fusion {
    const WORDS: &'static [(&'static str, Fusion)] = &[
        ("separate", Fusion::Separate),
        ("contiguous", Fusion::Contiguous),
        ("interleaved", Fusion::Interleaved),
    ];
}

impl Spelled for Experts {
    const WORDS: &'static [(&'static str, Experts)] = &[
        ("stacked", Experts::Stacked),
        ("separate", Experts::Separate),
    ];
}

/// What a value is called in files.
pub(super) fn spelled<T: Spelled>(value: T) -> String {
    let found = T::WORDS.iter().find(|(_, known)| *known == value);
    found.map_or_else(String::new, |(word, _)| (*word).to_owned())
}

impl Choices {
    /// What the usual training job of a scheme has.
    #[must_use]
    pub fn usual(names: Scheme) -> Choices {
        let fusion = match names {
            Scheme::Legacy => Fusion::Separate,
            Scheme::Mcore => Fusion::Interleaved,
        };
        Choices {
            names,
            qkv: fusion,
            ffn: fusion,
            experts: Experts::Stacked,
            tp: 1,
        }
    }

    /// Whether the full tensors depend on the tensor-parallel size.
    #[must_use]
    pub fn depend_on_tp(&self) -> bool {
        self.qkv == Fusion::Contiguous || self.ffn == Fusion::Contiguous
    }

    /// The metadata that records them.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let values = [
            (NAMES, spelled(self.names)),
            (QKV, spelled(self.qkv)),
            (FFN, spelled(self.ffn)),
            (EXPERTS, spelled(self.experts)),
            (TP, self.tp.to_string()),
        ];
        let keyed = values.map(|(key, value)| (format!("{OWN_KEYS}{key}"), value));
        keyed.into_iter().collect()
    }
}

/// Choices as far as they were given, or recorded in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// Names.
    pub names: Option<Scheme>,
    /// Query, key and value.
    pub qkv: Option<Fusion>,
    /// Gate and up.
    pub ffn: Option<Fusion>,
    /// Experts.
    pub experts: Option<Experts>,
    /// Tensor-parallel size.
    pub tp: Option<u64>,
}

impl Partial {
    /// Reads what files record.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a value that we never write.
    pub fn recorded(metadata: &BTreeMap<String, String>) -> Result<Partial> {
        fn one<T: Spelled>(map: &BTreeMap<String, String>, key: &str) -> Result<Option<T>> {
            let Some(text) = map.get(&format!("{OWN_KEYS}{key}")) else {
                return Ok(None);
            };
            let found = T::WORDS.iter().find(|(word, _)| word == text);
            found
                .map(|(_, value)| Some(*value))
                .ok_or_else(|| unknown(key, text))
        }
        let tp = metadata.get(&format!("{OWN_KEYS}{TP}"));
        let tp = tp.map(|text| text.parse().map_err(|_| unknown(TP, text)));
        Ok(Partial {
            names: one(metadata, NAMES)?,
            qkv: one(metadata, QKV)?,
            ffn: one(metadata, FFN)?,
            experts: one(metadata, EXPERTS)?,
            tp: tp.transpose()?,
        })
    }

    /// These, and where they say nothing, the others.
    #[must_use]
    pub fn or(self, others: Partial) -> Partial {
        Partial {
            names: self.names.or(others.names),
            qkv: self.qkv.or(others.qkv),
            ffn: self.ffn.or(others.ffn),
            experts: self.experts.or(others.experts),
            tp: self.tp.or(others.tp),
        }
    }

    /// These, and where they say nothing, the usual ones.
    #[must_use]
    pub fn complete(self, names: Scheme) -> Choices {
        let names = self.names.unwrap_or(names);
        let usual = Choices::usual(names);
        Choices {
            names,
            qkv: self.qkv.unwrap_or(usual.qkv),
            ffn: self.ffn.unwrap_or(usual.ffn),
            experts: self.experts.unwrap_or(usual.experts),
            tp: self.tp.unwrap_or(usual.tp),
        }
    }
}

fn unknown(key: &str, text: &str) -> Fault {
    let message =
        format!("metadata '{OWN_KEYS}{key}' is '{text}', which this version doesn't know");
    Fault::new(Kind::Corrupt, message)
}
