//! How many ranks share what.

use crate::fault::{Fault, Kind, Result};
use crate::layout::RANKS_MAX;

/// The sizes of a job's mesh. Rank `r` is of stage `r / ranks_per_stage`; in a stage tensor parallel
/// varies fastest, data parallel slowest. Expert parallel lies within data and tensor parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Data parallel.
    pub data: u64,
    /// Tensor (model) parallel.
    pub tensor: u64,
    /// Pipeline stages.
    pub stages: u64,
    /// Context parallel.
    pub context: u64,
    /// Expert parallel.
    pub expert: u64,
}

impl Mesh {
    /// One rank.
    pub const ONE: Mesh = Mesh {
        data: 1,
        tensor: 1,
        stages: 1,
        context: 1,
        expert: 1,
    };

    /// Ranks of a stage.
    #[must_use]
    pub fn ranks_per_stage(&self) -> u64 {
        self.data * self.context * self.tensor
    }

    /// Ranks of all stages.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        self.ranks_per_stage() * self.stages
    }

    /// Whether it is a mesh that a job can have.
    ///
    /// # Errors
    /// [`Kind::Config`] for a size of 0, or more ranks than any job has.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("data_parallel", self.data),
            ("model_parallel", self.tensor),
            ("pipeline_stage", self.stages),
            ("context_parallel", self.context),
            ("expert_parallel", self.expert),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            let fault = Fault::new(Kind::Config, format!("{name} is 0"));
            return Err(fault.hint("sizes are from 1"));
        }
        let product = sizes[..4]
            .iter()
            .try_fold(1u64, |product, (_, size)| product.checked_mul(*size));
        if product.is_none_or(|ranks| ranks > u64::from(RANKS_MAX)) {
            let message = format!(
                "data_parallel {} * context_parallel {} * model_parallel {} * pipeline_stage {} is more \
                 than {RANKS_MAX} ranks",
                self.data, self.context, self.tensor, self.stages
            );
            return Err(Fault::new(Kind::Config, message));
        }
        Ok(())
    }
}
