//! `shardloom simulate`: a plan without data. One process, no MPI.

use crate::cli::args::SimulateArgs;
use crate::fault::Result;
use crate::measure::simulate::{Question, read_machine, simulate};
use crate::report::{Report, save_picture};

/// Plans and tells.
pub(super) fn run(args: &SimulateArgs, report: &Report) -> Result<bool> {
    let simulated = simulate(&Question {
        source_strategy: args.src_strategy.clone(),
        destination_strategy: args.dst_strategy.clone(),
        shapes: args.shapes.clone(),
        process: args.process,
        processes: args.processes,
        ranks_per_node: args.ranks_per_node,
        storage: args.storage,
        exchange: args.exchange,
        memory_bytes: args.memory,
        machine: read_machine(args.machine.as_deref())?,
    })?;
    if let Some(path) = &args.svg {
        save_picture(path, &Report::simulated_picture(&simulated))?;
    }
    report.simulated(&simulated)?;
    Ok(true)
}
