//! What an optimizer keeps of a tensor.

use super::network::Parameter;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::model::choices::Scheme;

/// An optimizer whose states have known names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Optimizer(&'static Row);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    class: &'static str,
    states: &'static [&'static str],
    /// The states of matrices, where they have others.
    of_matrices: Option<&'static [&'static str]>,
    /// The only network that has it.
    only: Option<Scheme>,
}

const ADAM: &[&str] = &["adam_m", "adam_v"];

const fn row(class: &'static str, states: &'static [&'static str]) -> Row {
    Row {
        class,
        states,
        of_matrices: None,
        only: None,
    }
}

const TABLE: &[Row] = &[
    row("AdamW", ADAM),
    row("Adam", &["moment1", "moment2"]),
    row("PmaAdamW", &["adam_m", "adam_v", "pma_weight_ema"]),
    row("AdamWeightDecay", ADAM),
    Row {
        only: Some(Scheme::Legacy),
        ..row("FP32StateAdamWeightDecay", ADAM)
    },
    Row {
        of_matrices: Some(&["muon_m"]),
        only: Some(Scheme::Mcore),
        ..row(MUON, ADAM)
    },
];

/// The usual one where masters of the weights are kept as well.
const WITH_MASTERS: Row = row("AdamW", &["adam_m", "adam_v", "main_param"]);

const MUON: &str = "Muon";

impl Optimizer {
    /// The optimizer of class `name`; nothing said: `AdamW`.
    ///
    /// # Errors
    /// [`Kind::Config`] for one whose states aren't known, or that the network doesn't have.
    pub(super) fn called(name: Option<&str>, scheme: Scheme) -> Result<Optimizer> {
        let name = name.unwrap_or(TABLE[0].class);
        let fits = |row: &&Row| row.only.is_none_or(|only| only == scheme);
        let known: Vec<&str> = TABLE.iter().filter(fits).map(|row| row.class).collect();
        let found = TABLE.iter().filter(fits).find(|row| row.class == name);
        found.map(Optimizer).ok_or_else(|| {
            let names = if scheme == Scheme::Mcore { "False" } else { "True" };
            let message = format!(
                "optimizer.type is '{name}': the states that it has with use_legacy {names} aren't known"
            );
            let near = nearest(name, known.iter().copied());
            let near = near.first().map_or(String::new(), |n| format!("did you mean {n}? "));
            Fault::new(Kind::Config, message).hint(format!("{near}known: {}", known.join(", ")))
        })
    }

    /// The usual one, with or without masters in 32 bits.
    pub(super) fn usual(masters: bool) -> Optimizer {
        Optimizer(if masters { &WITH_MASTERS } else { &TABLE[0] })
    }

    /// Whether it is the one that keeps some tensors out of its shard.
    pub(super) fn is_muon(self) -> bool {
        self.0.class == MUON
    }

    /// The beginnings of the names of a tensor's states.
    pub(super) fn states(self, parameter: &Parameter) -> &'static [&'static str] {
        if !parameter.trained {
            return &[];
        }
        match self.0.of_matrices {
            Some(states) if parameter.shape.len() == 2 && !parameter.cut.is_of_vocabulary() => {
                states
            }
            _ => self.0.states,
        }
    }
}
