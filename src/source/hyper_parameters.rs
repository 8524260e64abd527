//! Where a job stands, as the file beside full weights tells.

use crate::exchange::{World, agree, all_gather};
use crate::fault::Result;
use crate::source::scalars::scalar;
use crate::store::Format;
use crate::store::io::{self, ReadFile, Standing};
use crate::tensor::number::whole;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where a checkpoint stands in its job, as far as it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scalars {
    /// Total steps (`step_num`).
    pub step: Option<u64>,
    /// Epochs (`epoch_num`).
    pub epoch: Option<u64>,
    /// Samples of a step (`global_batch_size`).
    pub batch: Option<u64>,
}

/// What `hyper_param.safetensors` of full weights tells; `None` if no process sees one. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Corrupt`], [`crate::fault::Kind::Io`].
pub fn hyper_parameters(world: &World, directory: &Path) -> Result<Option<Scalars>> {
    let path = directory.join("hyper_param.safetensors");
    let mine = agree(world, read_hyper_parameters(&path))?;
    Ok(all_gather(world, &mine)?.into_iter().flatten().next())
}

fn read_hyper_parameters(path: &Path) -> Result<Option<Scalars>> {
    if io::standing(path)? != Standing::File {
        return Ok(None);
    }
    let file = ReadFile::open(path)?;
    let schema = Format::SAFETENSORS.read(&file)?;
    let read = |name: &str| Ok(scalar(&file, &schema, name)?.and_then(whole));
    Ok(Some(Scalars {
        step: read("step_num")?,
        epoch: read("epoch_num")?,
        batch: read("global_batch_size")?,
    }))
}
