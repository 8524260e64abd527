//! A layout as it is typed: `dp=2,tp=4,pp=2,offset=1:0`.

use super::mesh::Mesh;
use super::offset::Offset;
use crate::fault::{Fault, Kind, Result};
use std::collections::BTreeSet;
use std::fmt;

/// What may be typed, as a hint.
const FORM: &str = "dp, tp, pp, cp and ep, each with a size from 1; opt (-1: all replicas) and its threshold (KB); offset (1:0), \
     interleave and vocab_emb_dp (true or false): dp=2,tp=4,pp=2";

/// A usual job's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// How many ranks share what.
    pub mesh: Mesh,
    /// Pieces of the optimizer shard, -1 for as many as there are replicas; none: there is no such shard.
    pub shard: Option<i64>,
    /// The size in KB from which on a tensor has one; none: what MindSpore takes.
    pub threshold_kb: Option<u64>,
    /// Layers that stages have more, or fewer, than their even share.
    pub(super) offset: Offset,
    /// Runs of layers that a stage has.
    pub chunks: u64,
    /// Whether the embedding of a legacy network is whole on every rank; none: as the trainer has it.
    pub vocabulary_whole: Option<bool>,
}

impl From<Mesh> for Sizes {
    fn from(mesh: Mesh) -> Self {
        Sizes {
            mesh,
            shard: None,
            threshold_kb: None,
            offset: Offset::All(0),
            chunks: 1,
            vocabulary_whole: None,
        }
    }
}

/// The keys: what is typed, what a trainer's configuration calls it, and where its value goes.
const KEYS: [(&str, &str, Key); 10] = [
    ("dp", "data_parallel", Key::Data),
    ("tp", "model_parallel", Key::Tensor),
    ("pp", "pipeline_stage", Key::Stages),
    ("cp", "context_parallel", Key::Context),
    ("ep", "expert_parallel", Key::Expert),
    ("opt", "optimizer_weight_shard_size", Key::Shard),
    ("threshold", "parallel_optimizer_threshold", Key::Threshold),
    ("offset", "offset", Key::Offset),
    ("interleave", "pp_interleave_num", Key::Chunks),
    ("vocab_emb_dp", "vocab_emb_dp", Key::Vocabulary),
];

/// The same fault in the words of a layout that was typed.
pub(super) fn as_typed(fault: Fault) -> Fault {
    Fault {
        message: in_typed_words(&fault.message),
        hint: fault.hint.as_deref().map(in_typed_words),
        ..fault
    }
}

fn in_typed_words(text: &str) -> String {
    let replace = |text: String, (typed, key, _): &(&str, &str, Key)| text.replace(key, typed);
    KEYS.iter().fold(text.to_owned(), replace)
}

#[derive(Clone, Copy)]
enum Key {
    Data,
    Tensor,
    Stages,
    Context,
    Expert,
    Shard,
    Threshold,
    Offset,
    Chunks,
    Vocabulary,
}

impl Sizes {
    /// Whether `text` begins as a layout does, whatever follows: by a word and a size.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let Some((name, rest)) = text.split_once('=') else {
            return false;
        };
        let known = KEYS
            .iter()
            .any(|(key, ..)| key.eq_ignore_ascii_case(name.trim()));
        let word = name.bytes().all(|byte| byte.is_ascii_alphabetic());
        known
            || word
                && !name.is_empty()
                && rest.starts_with(|size: char| size.is_ascii_digit())
                && !rest.contains(['/', '.'])
    }

    /// Reads `dp=2,tp=4,pp=2,cp=1,ep=2,opt=-1,threshold=64,offset=1:0,interleave=1,vocab_emb_dp=true`; what
    /// is left out is 1, none, or as the trainer has it. `offset` of several chunks: `1:0/0:0`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for anything else, and for sizes that say nothing without another.
    pub fn parse(text: &str) -> Result<Sizes> {
        let usage =
            |message: String| Fault::new(Kind::Usage, format!("'{text}': {message}")).hint(FORM);
        let mut sizes = Sizes::from(Mesh::ONE);
        let mut seen = BTreeSet::new();
        for part in parts(text) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| usage(format!("'{part}' is not NAME=SIZE")))?;
            let (name, value) = (name.trim(), value.trim());
            let key = KEYS.iter().find(|(key, ..)| key.eq_ignore_ascii_case(name));
            let unknown = || match name {
                "mp" => "'mp' is called tp here".to_owned(),
                _ => format!("'{name}' is unknown"),
            };
            let (name, _, key) = *key.ok_or_else(|| usage(unknown()))?;
            if !seen.insert(name) {
                return Err(usage(format!("'{name}' is given twice")));
            }
            sizes.set(key, name, value).map_err(usage)?;
        }
        for (name, needed) in [("threshold", "opt"), ("offset", "pp"), ("interleave", "pp")] {
            if seen.contains(name) && !seen.contains(needed) {
                return Err(usage(format!("'{name}' says nothing without '{needed}'")));
            }
        }
        Ok(sizes)
    }

    fn set(&mut self, key: Key, name: &str, value: &str) -> std::result::Result<(), String> {
        let size = || -> std::result::Result<u64, String> {
            let size = value.parse::<u64>().ok().filter(|n| *n > 0);
            size.ok_or_else(|| format!("{name} is '{value}', no size from 1"))
        };
        match key {
            Key::Data => self.mesh.data = size()?,
            Key::Tensor => self.mesh.tensor = size()?,
            Key::Stages => self.mesh.stages = size()?,
            Key::Context => self.mesh.context = size()?,
            Key::Expert => self.mesh.expert = size()?,
            Key::Chunks => self.chunks = size()?,
            Key::Shard => {
                let size = value.parse::<i64>().ok().filter(|n| *n == -1 || *n > 0);
                let size = size.ok_or_else(|| format!("opt is '{value}', not -1 or a size"))?;
                self.shard = Some(size);
            }
            Key::Threshold => {
                let kilobytes = value.parse::<u64>().ok();
                let kilobytes =
                    kilobytes.ok_or_else(|| format!("threshold is '{value}', no number of KB"))?;
                self.threshold_kb = Some(kilobytes);
            }
            Key::Offset => self.offset = Offset::typed(value)?,
            Key::Vocabulary => {
                let whole = value.to_ascii_lowercase().parse().ok();
                let whole: bool =
                    whole.ok_or_else(|| format!("{name} is '{value}', not true or false"))?;
                self.vocabulary_whole = Some(whole);
            }
        }
        Ok(())
    }
}

/// What commas part outside of brackets.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i64;
    text.split(move |letter| {
        depth += match letter {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        letter == ',' && depth == 0
    })
}

/// As it is typed.
impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mesh = &self.mesh;
        write!(out, "dp={},tp={}", mesh.data, mesh.tensor)?;
        for (name, size) in [
            ("pp", mesh.stages),
            ("cp", mesh.context),
            ("ep", mesh.expert),
            ("interleave", self.chunks),
        ] {
            if size > 1 {
                write!(out, ",{name}={size}")?;
            }
        }
        if self.offset != Offset::All(0) {
            write!(out, ",offset={}", self.offset)?;
        }
        if let Some(shard) = self.shard {
            write!(out, ",opt={shard}")?;
        }
        if let Some(kilobytes) = self.threshold_kb {
            write!(out, ",threshold={kilobytes}")?;
        }
        match self.vocabulary_whole {
            Some(whole) => write!(out, ",vocab_emb_dp={whole}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_shown() {
        for text in [
            "dp=2,tp=4",
            "dp=1,tp=1,pp=2,cp=3,ep=5,interleave=2,offset=1:0/-1:0,opt=-1,threshold=0",
            "dp=2,tp=2,vocab_emb_dp=false",
            "dp=2,tp=1,pp=3,offset=1:0:-1,opt=2",
        ] {
            let sizes = Sizes::parse(text).unwrap();
            assert_eq!(sizes.to_string(), text);
        }
        let loud = Sizes::parse("DP=2,Tp=4").unwrap();
        assert!(
            Sizes::is_meant("mp=2,dp=2")
                && !Sizes::is_meant("a=2/b")
                && !Sizes::is_meant("step=2.ckpt")
        );
        assert!(Sizes::is_meant("DP=2,Tp=4") && loud == Sizes::parse("dp=2,tp=4").unwrap());
        let bracketed = Sizes::parse("pp=2, offset=[[1,0],[0,0]], interleave=2").unwrap();
        assert_eq!(
            bracketed.to_string(),
            "dp=1,tp=1,pp=2,interleave=2,offset=1:0/0:0"
        );
    }

    #[test]
    fn what_is_none_is_wrong_usage() {
        for text in [
            "",
            "dp",
            "dp=",
            "dp=0",
            "dp=-1",
            "xp=2",
            "dp=2,dp=2",
            "dp=2,",
            "opt=0",
            "opt=-2",
            "threshold=8",
            "offset=1:0",
            "pp=2,offset=",
            "pp=2,offset=1:x",
            "pp=2,offset=[1,",
            "vocab_emb_dp=2",
            "dp=2,interleave=2",
            "dp=18446744073709551616",
            "dp=2]",
        ] {
            let fault = Sizes::parse(text).unwrap_err();
            assert_eq!(fault.kind, Kind::Usage, "{text}");
        }
    }
}
