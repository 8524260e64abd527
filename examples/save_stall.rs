//! How long a training waits when it saves with `async_save`, beside one copy of its state in memory.
//!
//! `mpirun -n 2 save_stall --dir DIR [--bytes BYTES] [--tensors N] [--rounds N] [--weights]`
//!
//! Each process saves a state of its own, and copies it into memory that it has used before: what the
//! least copy of it would take. The thread that writes has time to end before the next save, so only
//! what every save costs is seen. Prints a line a round, and medians.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use shardloom::checkpoint::monitor::{CheckpointMonitor, MonitorConfig, State, StateTensor};
use shardloom::exchange::{Operation, World, all_reduce, barrier};
use shardloom::fault::Result;
use shardloom::tensor::dtype::Dtype;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Args {
    /// Where to write.
    #[arg(long)]
    dir: PathBuf,
    /// Size of each process's state.
    #[arg(long, default_value_t = 512 << 20)]
    bytes: usize,
    /// Number of tensors it is divided into.
    #[arg(long, default_value_t = 300)]
    tensors: usize,
    /// Saves.
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// Write a third of it, the weights, once more.
    #[arg(long)]
    weights: bool,
}

/// The longest time of any process. Collective.
fn slowest(world: &World, time: Duration) -> Result<Duration> {
    let mut nanoseconds = [u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)];
    all_reduce(world, &mut nanoseconds, Operation::Max)?;
    Ok(Duration::from_nanos(nanoseconds[0]))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn measure(world: &World, args: &Args) -> Result<()> {
    let each = args.bytes / args.tensors.max(1) / 4 * 4;
    let mut state: Vec<Vec<u8>> = (0..args.tensors).map(|_| vec![1; each]).collect();
    let mut copy: Vec<Vec<u8>> = state.clone();
    let names: Vec<String> = (0..args.tensors)
        .map(|number| format!("layers.{number}.weight"))
        .collect();
    let shape = [each as u64 / 4];
    let mut config = MonitorConfig::default();
    config.async_save = true;
    config.keep_checkpoint_max = 2;
    config.save_network_params = args.weights;
    let mut monitor = CheckpointMonitor::new(world, config, &args.dir, None)?;
    let (mut saves, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        for tensor in &mut state {
            tensor.fill(u8::try_from(round % 251).unwrap_or(0));
        }
        barrier(world)?;
        let start = Instant::now();
        for (to, from) in copy.iter_mut().zip(&state) {
            to.copy_from_slice(from);
        }
        let copied = slowest(world, start.elapsed())?;
        let tensors: Vec<StateTensor<'_>> = names
            .iter()
            .zip(&state)
            .enumerate()
            .map(|(number, (name, bytes))| {
                let tensor = StateTensor::new(name, Dtype::F32, &shape, bytes);
                match number % 3 {
                    0 => tensor,
                    _ => tensor.of_optimizer(),
                }
            })
            .collect();
        let state = State::new(&tensors, round);
        if round == 1 {
            monitor.prepare(&state)?;
        }
        barrier(world)?;
        let start = Instant::now();
        monitor.save(world, &state)?;
        let stalled = slowest(world, start.elapsed())?;
        let ratio = stalled.as_secs_f64() / copied.as_secs_f64();
        if world.process() == 0 {
            println!("round {round}: save {stalled:.1?}, copy {copied:.1?}, ratio {ratio:.2}");
        }
        saves.push(stalled.as_secs_f64() * 1e3);
        copies.push(copied.as_secs_f64() * 1e3);
        ratios.push(ratio);
        while !monitor.idle() {
            std::thread::sleep(Duration::from_millis(5));
        }
        barrier(world)?;
    }
    monitor.settle(world)?;
    if world.process() == 0 {
        let [save, copy, ratio] = [saves, copies, ratios].map(median);
        println!("median: save {save:.1} ms, copy {copy:.1} ms, ratio {ratio:.2}");
    }
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
    if let Err(fault) = measure(&world, &args) {
        eprintln!("error: {fault}");
        world.abort(1);
    }
    match world.finish() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
