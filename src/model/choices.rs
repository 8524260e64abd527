//! The choices that a name table can't tell.

use super::expression::Numbers;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum Experts {
    /// All in one tensor, for grouped multiplication.
    Stacked,
    /// The same in three dimensions, as networks of dynamic graphs have them under the mcore names.
    #[serde(rename = "stacked-3d")]
    Stacked3d,
    /// As the layout without grouped multiplication has them.
    Separate,
}

/// How the latent projections of queries and of keys and values are kept under the mcore names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Latent {
    /// Each by itself: `mla_qkv_concat: False`.
    Separate,
    /// Their rows in one, that of queries first: `mla_qkv_concat: True`.
    Joined,
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
    /// Latent projections.
    pub mla: Latent,
    /// Tensor-parallel size that contiguous fused tensors were made for.
    pub tp: u64,
}

const NAMES: &str = "names";
const QKV: &str = "qkv";
const FFN: &str = "ffn";
const EXPERTS: &str = "experts";
const MLA: &str = "mla";
const TP: &str = "tp";

/// A choice that files record, and a user types, by a word.
pub trait Spelled: Copy + PartialEq + 'static {
    /// The words, what they stand for, and what that is.
    const WORDS: &'static [(&'static str, Self, &'static str)];
}

/// The word of a choice.
#[must_use]
pub fn spelled<T: Spelled>(value: T) -> &'static str {
    let found = T::WORDS.iter().find(|(_, known, _)| *known == value);
    found.map_or("", |(word, _, _)| word)
}

impl Spelled for Scheme {
    const WORDS: &'static [(&'static str, Scheme, &'static str)] = &[
        (
            "legacy",
            Scheme::Legacy,
            "`model.layers.0.attention.wq.weight`",
        ),
        (
            "mcore",
            Scheme::Mcore,
            "`decoder.layers.0.self_attention.linear_qkv.weight`",
        ),
    ];
}

impl Spelled for Fusion {
    const WORDS: &'static [(&'static str, Fusion, &'static str)] = &[
        ("separate", Fusion::Separate, "Each by itself"),
        (
            "contiguous",
            Fusion::Contiguous,
            "In one, one after the other: of the whole tensor, or of each of `tp` shards",
        ),
        (
            "interleaved",
            Fusion::Interleaved,
            "In one, taking turns: a key-value group each, or a row each",
        ),
    ];
}

impl Spelled for Experts {
    const WORDS: &'static [(&'static str, Experts, &'static str)] = &[
        (
            "stacked",
            Experts::Stacked,
            "All in one tensor, for grouped multiplication",
        ),
        (
            "stacked-3d",
            Experts::Stacked3d,
            "The same in three dimensions, as dynamic graphs have them under the mcore names",
        ),
        (
            "separate",
            Experts::Separate,
            "As the layout without grouped multiplication has them",
        ),
    ];
}

impl Spelled for Latent {
    const WORDS: &'static [(&'static str, Latent, &'static str)] = &[
        (
            "separate",
            Latent::Separate,
            "Each by itself: `mla_qkv_concat: False`",
        ),
        (
            "joined",
            Latent::Joined,
            "Their rows in one `linear_qkv`: `mla_qkv_concat: True`",
        ),
    ];
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
            mla: Latent::Separate,
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
            (NAMES, spelled(self.names).to_owned()),
            (QKV, spelled(self.qkv).to_owned()),
            (FFN, spelled(self.ffn).to_owned()),
            (EXPERTS, spelled(self.experts).to_owned()),
            (TP, self.tp.to_string()),
        ];
        // What few families have is told only where it isn't the usual.
        let joined = (self.mla == Latent::Joined).then(|| (MLA, spelled(self.mla).to_owned()));
        let all = values.into_iter().chain(joined);
        all.map(|(key, value)| (format!("{OWN_KEYS}{key}"), value))
            .collect()
    }
}

/// What conditions of a table call latent projections in one, as the trainer does.
pub(super) const LATENT_KEY: &str = "mla_qkv_concat";
/// What they call experts in three dimensions.
const EXPERTS_3D_KEY: &str = "experts_3d";

impl Choices {
    /// A model's numbers, and these choices as conditions of a table ask for them.
    pub(super) fn told(&self, numbers: &Numbers) -> Numbers {
        let joined = self.mla == Latent::Joined && self.names == Scheme::Mcore;
        let flat = self.experts != Experts::Stacked3d || self.names != Scheme::Mcore;
        let numbers = numbers.clone().with(LATENT_KEY, joined);
        numbers.with(EXPERTS_3D_KEY, !flat)
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
    /// Latent projections.
    pub mla: Option<Latent>,
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
            let found = T::WORDS.iter().find(|(word, _, _)| word == text);
            found
                .map(|(_, value, _)| Some(*value))
                .ok_or_else(|| unknown(key, text))
        }
        let tp = metadata.get(&format!("{OWN_KEYS}{TP}"));
        let tp = tp.map(|text| text.parse().map_err(|_| unknown(TP, text)));
        Ok(Partial {
            names: one(metadata, NAMES)?,
            qkv: one(metadata, QKV)?,
            ffn: one(metadata, FFN)?,
            experts: one(metadata, EXPERTS)?,
            mla: one(metadata, MLA)?,
            tp: tp.transpose()?,
        })
    }

    /// Checks that these say nothing else than what is `recorded` of the order of rows. The names' scheme is what
    /// a name map gives.
    ///
    /// # Errors
    /// [`Kind::Differs`] naming what the files say.
    pub fn check(&self, recorded: &Partial) -> Result<()> {
        let unlike = [
            (QKV, self.qkv.zip(recorded.qkv).is_some_and(|(a, b)| a != b)),
            (FFN, self.ffn.zip(recorded.ffn).is_some_and(|(a, b)| a != b)),
            (
                EXPERTS,
                self.experts
                    .zip(recorded.experts)
                    .is_some_and(|(a, b)| a != b),
            ),
            (MLA, self.mla.zip(recorded.mla).is_some_and(|(a, b)| a != b)),
            (TP, self.tp.zip(recorded.tp).is_some_and(|(a, b)| a != b)),
        ];
        match unlike.iter().find(|(_, unlike)| *unlike) {
            None => Ok(()),
            Some((key, _)) => {
                let message =
                    format!("--{key}: the files' metadata '{OWN_KEYS}{key}' says something else");
                Err(Fault::new(Kind::Differs, message).hint("leave the flag out"))
            }
        }
    }

    /// These, and where they say nothing, the others.
    #[must_use]
    pub fn or(self, others: Partial) -> Partial {
        Partial {
            names: self.names.or(others.names),
            qkv: self.qkv.or(others.qkv),
            ffn: self.ffn.or(others.ffn),
            experts: self.experts.or(others.experts),
            mla: self.mla.or(others.mla),
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
            mla: self.mla.unwrap_or(usual.mla),
            tp: self.tp.unwrap_or(usual.tp),
        }
    }
}

fn unknown(key: &str, text: &str) -> Fault {
    let message =
        format!("metadata '{OWN_KEYS}{key}' is '{text}', which this version doesn't know");
    Fault::new(Kind::Corrupt, message)
}
