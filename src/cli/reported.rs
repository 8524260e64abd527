//! Work whose report is written, if one is asked for, whether it ends well or not.

use crate::cli::command::{Together, Told};
use crate::cli::flags::report::ReportArgs;
use crate::course::pace;
use crate::exchange::World;
use crate::fault::Result;
use crate::report::failed_page;
use crate::transport::Observer;

/// Does it. Collective.
pub(super) fn reported(
    world: &World,
    command: &str,
    asked: &ReportArgs,
    work: Box<Together>,
    observer: &mut Observer<'_>,
) -> Result<Told> {
    asked.begin(world)?;
    let mut result = work(world, observer);
    pace::stop();
    if world.process() != 0 || asked.report.is_none() {
        return result;
    }
    let page = match &mut result {
        Ok(told) => told.page(command),
        Err(fault) => failed_page(command, fault),
    };
    if let Err(fault) = asked.save(&page) {
        tracing::error!("the report can't be written: {fault}");
        if let Ok(told) = &mut result {
            told.ok = false;
        }
    }
    result
}
