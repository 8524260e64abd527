//! Trains a small language model on bytes of text, under MPI, and saves through [`CheckpointMonitor`].
//!
//! `mpirun -n 4 train_lm --dp 2 --tp 2 --steps 40 --save-every 20 --dir run`
//!
//! `D * T` processes: T cut each weight between them, D take their part of each batch. With
//! `--optimizer-shard` the D also cut what they would hold alike, rows of weights and of Adam's moments.
//! Weights have the names of a Llama: `--form separate` (legacy) or `--form fused` (mcore), `shardloom reshard --model` makes the other.
//! `run/strategy.ckpt` says how, so `shardloom reshard` can make `run/checkpoint` fit other D and T;
//! `--resume DIR` goes on from such a directory, or from a job's own. See docs/training.md.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod form;
mod model;
mod parallel;
mod state;

use candle_core::{Device, Tensor};
use clap::Parser;
use form::Form;
use model::{Model, WINDOW};
use parallel::{Mesh, average};
use shardloom::checkpoint::monitor::{CheckpointMonitor, MonitorConfig, State};
use shardloom::exchange::World;
use state::Training;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whatever may go wrong: in the library, in the tensors, in a file.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
struct Args {
    /// Processes that share the batch.
    #[arg(long, default_value_t = 1)]
    dp: u32,
    /// Processes that share each weight.
    #[arg(long, default_value_t = 1)]
    tp: u32,
    /// Cut weights and moments once more, over the processes that share the batch.
    #[arg(long)]
    optimizer_shard: bool,
    /// Names and fusing of the weights.
    #[arg(long, value_enum, default_value = "separate")]
    form: Form,
    /// Steps of all runs together.
    #[arg(long, default_value_t = 40)]
    steps: u64,
    /// Steps between two checkpoints.
    #[arg(long, default_value_t = 20)]
    save_every: u64,
    /// Let a thread write the checkpoints.
    #[arg(long)]
    async_save: bool,
    /// Where to write the strategy and the checkpoints.
    #[arg(long)]
    dir: PathBuf,
    /// Write the strategy only, and end.
    #[arg(long)]
    only_save_strategy: bool,
    /// Go on from this directory of rank directories.
    #[arg(long)]
    resume: Option<PathBuf>,
    /// What to learn.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE"))]
    text: PathBuf,
    /// Sequences of a step, over all processes.
    #[arg(long, default_value_t = 8)]
    batch: u32,
}

/// The sequences of step `step` that fall to this process: the same text for any number of them.
fn batch(text: &[u8], args: &Args, mesh: &Mesh, step: u64) -> Result<(Tensor, Tensor)> {
    let each = args.batch / args.dp;
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for number in mesh.dp_index * each..(mesh.dp_index + 1) * each {
        let drawn = state::scramble(step << 20 | u64::from(number));
        let starts = u64::try_from(text.len() - WINDOW)?;
        let start = usize::try_from(drawn % starts)?;
        let window = &text[start..=start + WINDOW];
        inputs.extend(window[..WINDOW].iter().map(|byte| u32::from(*byte)));
        targets.extend(window[1..].iter().map(|byte| u32::from(*byte)));
    }
    let shape = (inputs.len() / WINDOW, WINDOW);
    Ok((
        Tensor::from_vec(inputs, shape, &Device::Cpu)?,
        Tensor::from_vec(targets, shape, &Device::Cpu)?,
    ))
}

fn train(world: &World, args: &Args) -> Result<()> {
    if args.dp * args.tp != world.size() || !args.batch.is_multiple_of(args.dp) {
        return Err(
            "dp times tp is not the number of processes, or dp doesn't divide the batch".into(),
        );
    }
    let text = std::fs::read(&args.text)?;
    let mesh = Mesh::new(args.dp, args.tp, world.process())?;
    let model = Model::new(&mesh, args.form)?;
    let sharded = args.optimizer_shard && args.dp > 1;
    let mut training = Training::new(&mesh, model.shapes(), sharded)?;
    let strategy = training.write_strategy(world, &args.dir)?;
    if args.only_save_strategy {
        return Ok(());
    }
    let done = match &args.resume {
        Some(from) => training.load(world, from)?,
        None => 0,
    };
    let mut config = MonitorConfig::default();
    config.prefix = "lm".into();
    config.save_checkpoint_steps = args.save_every;
    config.async_save = args.async_save;
    config.global_batch_size = Some(u64::from(args.batch));
    let mut monitor = CheckpointMonitor::new(world, config, &args.dir, Some(Path::new(&strategy)))?;
    for step in done + 1..=args.steps {
        let weights = training.gather(&mesh)?;
        let (inputs, targets) = batch(&text, args, &mesh, step)?;
        let loss = model.loss(&weights, &inputs, &targets)?;
        training.learn(&mesh, &weights, &loss.backward()?, step)?;
        let loss = average(&mesh.dp, loss.to_scalar::<f32>()?);
        if world.process() == 0 {
            println!("step {step} loss {loss:?}");
            std::io::stdout().flush()?;
        }
        if monitor.due(world)? {
            let bytes = training.bytes();
            monitor.save(world, &State::new(&training.tensors(&bytes), step))?;
        }
    }
    let bytes = training.bytes();
    let tensors = training.tensors(&bytes);
    monitor.finish(world, &State::new(&tensors, args.steps.max(done)))?;
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let world = match World::start() {
        Ok(world) => world,
        Err(fault) => {
            eprintln!("error: {fault}");
            return ExitCode::FAILURE;
        }
    };
    let result = train(&world, &args);
    parallel::release();
    if let Err(error) = result {
        eprintln!("error: process {}: {error}", world.process());
        world.abort(1);
    }
    match world.finish() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
