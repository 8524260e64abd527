//! A training loop that starts from weights saved in another layout: each process reads the shards of
//! its rank straight into its own buffers; no checkpoint is written.
//!
//! ```sh
//! mpirun -n 2 target/release/examples/load_into_memory SRC OLD.ckpt NEW.ckpt
//! ```
//!
//! `NEW.ckpt` is a strategy for as many ranks as there are processes. Parameters that it doesn't have
//! (counts, a learning rate) are left out.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program that says what it does"
)]

use shardloom::World;
use shardloom::fault::Result;
use shardloom::memory::{Buffer, Dtype};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// A parameter of the model, as this rank has it.
struct Parameter {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, old, new] = &arguments[..] else {
        println!("load_into_memory SRC OLD.ckpt NEW.ckpt");
        return Ok(ExitCode::SUCCESS);
    };
    let world = World::start()?;
    // A fault is the same on every process, so all come to the end together, and one tells of it.
    let started = start(&world, source, old, new);
    if let (Err(fault), 0) = (&started, world.process()) {
        eprintln!("error: {fault}");
    }
    world.finish()?;
    Ok(match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn start(world: &World, source: &str, old: &str, new: &str) -> Result<()> {
    let load = shardloom::load(source).source_strategy(old).strategy(new);

    // A real trainer knows its parameters; this one takes those that the new layout has.
    let rank = world.process();
    let mut parameters: BTreeMap<String, Parameter> = load
        .shards(world, rank)?
        .into_iter()
        .map(|shard| {
            let bytes = vec![0; usize::try_from(shard.bytes).unwrap_or(usize::MAX)];
            let (dtype, shape) = (shard.dtype, shard.shape);
            let parameter = Parameter {
                dtype,
                shape,
                bytes,
            };
            (shard.name, parameter)
        })
        .collect();

    let mut buffers: Vec<Buffer<'_>> = parameters
        .iter_mut()
        .map(|(name, p)| Buffer::new(name, p.dtype, &p.shape, &mut p.bytes))
        .collect();
    let outcome = load.into_buffers(world, rank, &mut buffers)?;

    let sum: u64 = parameters
        .values()
        .flat_map(|parameter| &parameter.bytes)
        .map(|byte| u64::from(*byte))
        .sum();
    println!(
        "rank {rank}: {} tensors, bytes add up to {sum} ({} read in all)",
        parameters.len(),
        outcome.bytes.read
    );
    Ok(())
}
