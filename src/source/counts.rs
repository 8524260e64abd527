//! Where a job stands, for a checkpoint 2.0 that is written of another kind.

use crate::exchange::{World, agree, all_gather};
use crate::fault::Result;
use crate::plan::arrange::Files;
use crate::plan::iteration::Iteration;
use crate::source::found::Source;
use crate::source::scalars::{scalar, whole};
use crate::store::checkpoint2::Common;
use crate::store::io::ReadFile;

/// Fills in what a checkpoint 2.0 that is to be written says of the job. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub fn settle(world: &World, source: &Source, files: &Files) -> Result<Files> {
    let Files::Iteration(asked) = files else {
        return Ok(files.clone());
    };
    if !asked.common.is_empty() {
        return Ok(files.clone());
    }
    let common = match &source.iteration {
        Some(iteration) => iteration.common.clone(),
        None => {
            let mine = agree(world, tensors_as_common(source))?;
            all_gather(world, &mine)?
                .into_iter()
                .flatten()
                .next()
                .unwrap_or_default()
        }
    };
    Ok(Files::Iteration(Iteration {
        number: common.step_num.unwrap_or(0),
        common: common.bytes()?,
        ..asked.clone()
    }))
}

/// Where the job stands, from the lowest rank's tensors, if this process reads those. Local.
fn tensors_as_common(source: &Source) -> Result<Option<Common>> {
    let Some((rank, files)) = source.catalog.ranks.iter().next() else {
        return Ok(None);
    };
    if source.reach.owner(*rank) != Some(source.reach.process) {
        return Ok(None);
    }
    let mut common = Common::default();
    for file in files {
        let open = ReadFile::open(&source.base.join(&file.path))?;
        let read = |name: &str| scalar(&open, &file.schema, name);
        let count = |name: &str| Ok(read(name)?.and_then(whole));
        common.epoch_num = common.epoch_num.or(count("epoch_num")?);
        common.step_num = common.step_num.or(count("step_num")?);
        common.global_step = common.global_step.or(count("global_step")?);
        common.global_batch_size = common.global_batch_size.or(count("global_batch_size")?);
        common.loss_scale = common.loss_scale.or(read("loss_scale")?);
    }
    Ok(Some(common))
}
