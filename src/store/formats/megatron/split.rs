//! How a job of the older form was cut: as the settings in each of its files say.

use super::stand::settings;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{self, Node, Pickle, Value};
use crate::store::formats::torch::Saved;
use crate::store::io::ReadFile;
use std::fmt::{Display, Formatter};

/// Most ranks of a kind.
const RANKS_MAX: u64 = 1 << 16;

/// How a job was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Ranks that rows and columns are cut for.
    pub(super) tensors: u64,
    /// Pipeline stages.
    pub(super) stages: u64,
    /// Parts of each stage, which it computes in turns; 1 as a rule.
    pub(super) turns: u64,
    /// Ranks that experts are dealt to.
    pub(super) experts: u64,
    /// Ranks that rows and columns of experts are cut for.
    pub(super) expert_tensors: u64,
    /// Layers of the network.
    pub(super) layers: u64,
    /// Experts of a layer.
    pub(super) expert_count: u64,
}

/// Where a file's tensors belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) tensor: u64,
    pub(super) stage: u64,
    pub(super) expert: u64,
}

impl Display for Split {
    fn fmt(&self, to: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "{} tensor by {} pipeline (of {} turns) by {} expert ranks (experts cut for {}), {} layers, {} experts",
            self.tensors,
            self.stages,
            self.turns,
            self.experts,
            self.expert_tensors,
            self.layers,
            self.expert_count
        )
    }
}

impl Split {
    /// As a rank's file says. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`], [`Kind::Unsupported`] for stages of unequal length; [`Kind::Io`].
    pub(super) fn read(file: &ReadFile) -> Result<Split> {
        let saved = Saved::open(file, 0..file.size())?;
        let pickle = pickle::read(&saved.pickle)?;
        Split::of(&pickle)
    }

    /// As its pickle says.
    ///
    /// # Errors
    /// As [`Split::read`].
    pub(super) fn of(pickle: &Pickle<'_>) -> Result<Split> {
        let none = || {
            let fault = Fault::new(
                Kind::Unsupported,
                "doesn't say how its job was cut: it has no args",
            );
            fault.hint("Megatron-LM before Megatron-Core? its own tools convert to torch_dist")
        };
        let args = settings(pickle).ok_or_else(none)?;
        let number = |key: &str| match pickle.get(args, key).map(|value| pickle.node(value)) {
            Some(Node::Int(number)) => u64::try_from(*number).ok().filter(|n| *n > 0),
            _ => None,
        };
        let ranks = |key: &str| {
            let number = number(key).unwrap_or(1);
            let odd = || Fault::new(Kind::Corrupt, format!("args.{key} is {number}"));
            (number <= RANKS_MAX).then_some(number).ok_or_else(odd)
        };
        for key in [
            "decoder_first_pipeline_num_layers",
            "decoder_last_pipeline_num_layers",
        ] {
            if number(key).is_some() {
                return Err(uneven(&format!("args.{key} is set")));
            }
        }
        let tensors = ranks("tensor_model_parallel_size")?;
        let split = Split {
            tensors,
            stages: ranks("pipeline_model_parallel_size")?,
            turns: ranks("virtual_pipeline_model_parallel_size")?,
            experts: ranks("expert_model_parallel_size")?,
            expert_tensors: number("expert_tensor_parallel_size")
                .unwrap_or(tensors)
                .min(RANKS_MAX),
            layers: number("num_layers").unwrap_or_default(),
            expert_count: number("num_experts").unwrap_or_default(),
        };
        let parts = split.stages * split.turns;
        if parts > 1 && !split.layers.is_multiple_of(parts) {
            let message = format!("{} layers in {parts} parts", split.layers);
            return Err(uneven(&message));
        }
        if !split.expert_count.is_multiple_of(split.experts) {
            let message = format!(
                "{} for {}",
                counted(split.expert_count, "expert"),
                counted(split.experts, "rank")
            );
            return Err(Fault::new(Kind::Corrupt, message));
        }
        Ok(split)
    }

    /// The directories that there are to be.
    pub(super) fn rooms(&self) -> Vec<String> {
        let mut rooms = Vec::new();
        for tensor in 0..self.tensors {
            for stage in 0..self.stages {
                for expert in 0..self.experts {
                    let mut room = format!("mp_rank_{tensor:02}");
                    if self.stages > 1 {
                        room += &format!("_{stage:03}");
                    }
                    if self.experts > 1 {
                        room += &format!("_{expert:03}");
                    }
                    rooms.push(room);
                }
            }
        }
        rooms
    }

    /// Where the last rank of each kind is.
    pub(super) fn last(&self) -> Spot {
        Spot {
            tensor: self.tensors - 1,
            stage: self.stages - 1,
            expert: self.experts - 1,
        }
    }

    /// Where the numbers of a directory's name are.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the job has no such rank.
    pub(super) fn spot(&self, numbers: &[u64]) -> Result<Spot> {
        let mut rest = numbers.get(1..).unwrap_or_default().iter().copied();
        let mut next = |several: bool| several.then(|| rest.next()).flatten().unwrap_or_default();
        let spot = Spot {
            tensor: numbers.first().copied().unwrap_or_default(),
            stage: next(self.stages > 1),
            expert: next(self.experts > 1),
        };
        let inside =
            spot.tensor < self.tensors && spot.stage < self.stages && spot.expert < self.experts;
        if inside && rest.next().is_none() {
            return Ok(spot);
        }
        let message = format!(
            "its directory is of a rank that its job doesn't have: {} by {} by {}",
            self.tensors, self.stages, self.experts
        );
        Err(Fault::new(Kind::Corrupt, message))
    }

    /// The network's number of layer `layer` of part `turn` of a stage.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it has no such layer.
    pub(super) fn layer(&self, spot: &Spot, turn: u64, layer: u64) -> Result<u64> {
        let each = self.layers / (self.stages * self.turns);
        let first = turn * (self.layers / self.turns) + spot.stage * each;
        let odd = || {
            let message = format!("has layer {layer} of a stage of {each} layers");
            Fault::new(Kind::Corrupt, message)
        };
        (layer < each).then_some(first + layer).ok_or_else(odd)
    }
}

fn uneven(what: &str) -> Fault {
    let message = format!("has pipeline stages of unequal length, which is not read: {what}");
    let fault = Fault::new(Kind::Unsupported, message);
    fault.hint("Megatron's own tools convert it to torch_dist")
}

/// What a rank's file holds under `model`, or `model0` and so on: each with its turn.
pub(super) fn models(pickle: &Pickle<'_>, turns: u64) -> Vec<(u64, Value)> {
    let of = |key: &str| pickle.get(pickle.root(), key);
    match of("model") {
        Some(model) => vec![(0, model)],
        None => (0..turns)
            .filter_map(|turn| Some((turn, of(&format!("model{turn}"))?)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_layers_are_where_the_job_had_them() {
        let split = Split {
            tensors: 2,
            stages: 2,
            turns: 2,
            experts: 1,
            expert_tensors: 2,
            layers: 8,
            expert_count: 0,
        };
        assert_eq!(
            split.rooms(),
            [
                "mp_rank_00_000",
                "mp_rank_00_001",
                "mp_rank_01_000",
                "mp_rank_01_001"
            ]
        );
        let spot = split.spot(&[1, 1]).unwrap();
        assert_eq!((spot.tensor, spot.stage, spot.expert), (1, 1, 0));
        assert_eq!(split.layer(&spot, 0, 1).unwrap(), 3);
        assert_eq!(split.layer(&spot, 1, 0).unwrap(), 6);
        assert!(split.layer(&spot, 0, 2).is_err());
        assert!(split.spot(&[2, 0]).is_err() && split.spot(&[0, 0, 1]).is_err());
        let experts = Split {
            stages: 1,
            experts: 2,
            ..split
        };
        assert_eq!(experts.rooms()[1], "mp_rank_00_001");
        assert_eq!(experts.spot(&[0, 1]).unwrap().expert, 1);
    }
}
