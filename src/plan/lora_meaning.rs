//! What the pairs of an adapter mean.

use crate::plan::lora_told::Told;
use crate::plan::pattern::Patterns;

/// What pairs mean.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// What their products are multiplied by.
    pub factor: Factor,
    /// The rank that they have, if it is told.
    pub rank: Option<u64>,
    /// Other ranks, by module.
    pub ranks: Patterns<u64>,
    /// Weights of modules that keep them so lie transposed: `[columns, rows]`.
    pub transposed: bool,
    /// All this is told by the adapter itself: what isn't a pair is a tensor in place of the source's.
    pub described: bool,
    /// A tensor that was trained in full may be there twice, under a name too that the source hasn't: embedding and head
    /// of a model that has one for both.
    pub tied: bool,
    /// Parameters that hold a matrix for each of several experts, and have pairs: ends of their names.
    pub parameters: Vec<String>,
    /// How those may lie in the source expert by expert.
    pub apart: Vec<Apart>,
    /// Whether A and B of these lie the other way round, where shapes don't tell it.
    pub turned: Option<bool>,
    /// What the adapter's file is to have.
    pub told: Told,
}

impl Meaning {
    /// Plain pairs with this factor.
    #[must_use]
    pub fn plain(factor: f64) -> Meaning {
        Meaning {
            factor: Factor::Fixed(factor),
            rank: None,
            ranks: Patterns::default(),
            transposed: false,
            described: false,
            tied: false,
            parameters: Vec::new(),
            apart: Vec::new(),
            turned: None,
            told: Told::default(),
        }
    }
}

/// A parameter that holds a matrix for each of several experts, as the model's own files may have it: a tensor for
/// each expert and matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The end of the parameter's name: `.mlp.experts.down_proj`.
    pub parameter: String,
    /// In its place, those of an expert's matrices that lie below each other in it:
    /// `.mlp.experts.{expert}.down_proj.weight`.
    pub matrices: Vec<String>,
}

/// What a pair's product is multiplied by.
#[derive(Clone, Debug)]
pub enum Factor {
    /// This, whatever the rank.
    Fixed(f64),
    /// Alpha over the rank, or over its square root.
    Alpha {
        /// Alpha.
        alpha: f64,
        /// Other alphas, by module.
        patterns: Patterns<f64>,
        /// Over the square root.
        by_root: bool,
    },
}

impl Factor {
    /// The factor of the pair of rank `rank` for module `module`, worked out in `f64`, as a number
    /// that elements are multiplied by.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted"
    )]
    #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
    pub fn of(&self, module: &str, rank: u64) -> f32 {
        match self {
            Factor::Fixed(factor) => *factor as f32,
            Factor::Alpha {
                alpha,
                patterns,
                by_root,
            } => {
                let alpha = patterns.of(module).unwrap_or(*alpha);
                let rank = rank as f64;
                (alpha / if *by_root { rank.sqrt() } else { rank }) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pattern::Pattern;

    #[test]
    fn factors_follow_alpha_and_rank() {
        let factor = |by_root| Factor::Alpha {
            alpha: 16.0,
            patterns: Patterns(vec![Pattern::new("mlp.up_proj", 4.0).unwrap()]),
            by_root,
        };
        let of = |factor: Factor, module: &str, rank| factor.of(module, rank).to_bits();
        assert_eq!(of(factor(false), "layers.0.q_proj", 8), f32::to_bits(2.0));
        assert_eq!(of(factor(true), "layers.0.q_proj", 16), f32::to_bits(4.0));
        assert_eq!(
            of(factor(false), "layers.0.mlp.up_proj", 8),
            f32::to_bits(0.5)
        );
        assert_eq!(
            of(factor(false), "layers.0.lmlp.up_proj", 8),
            f32::to_bits(2.0)
        );
        assert_eq!(of(Factor::Fixed(0.1), "x", 3), f32::to_bits(0.1));
    }
}
