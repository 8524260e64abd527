//! A training loop that only saves: `monitor_check OUTPUT STATE STRATEGY|- CONFIG FIRST LAST [die=STEP] [fail=STEP]
//! [pause=MILLISECONDS]`.
//!
//! Each rank's tensors are those of `STATE/rank_R/net.safetensors`, unchanged by the steps. With `die=S`
//! the highest rank dies after it has come to step S, without any clean-up; with `fail=S` it meets an error
//! there, which all learn of. Tensors called `frozen…` are weights that are not trained.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use safetensors::SafeTensors;
use shardloom::checkpoint::monitor::{CheckpointMonitor, MonitorConfig, State, StateTensor};
use shardloom::exchange::{World, agree};
use shardloom::fault::{Fault, Kind, Result};
use shardloom::tensor::dtype::Dtype;
use std::path::Path;
use std::process::ExitCode;

struct Owned {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

fn load(path: &Path) -> Vec<Owned> {
    let bytes = std::fs::read(path).expect("a state file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let owned = tensors.iter().map(|(name, view)| Owned {
        name: name.to_owned(),
        dtype: Dtype::from_safetensors(&view.dtype().to_string()).expect("a dtype"),
        shape: view.shape().iter().map(|dim| *dim as u64).collect(),
        bytes: view.data().to_vec(),
    });
    owned.collect()
}

fn train(world: &World, args: &[String]) -> Result<u32> {
    let [output, state, strategy, config, first, last, rest @ ..] = args else {
        return Ok(2);
    };
    let option = |name: &str| {
        rest.iter()
            .find_map(|arg| arg.strip_prefix(name)?.parse::<u64>().ok())
    };
    let owned = load(&Path::new(state).join(format!("rank_{}/net.safetensors", world.process())));
    let tensors: Vec<StateTensor<'_>> = owned
        .iter()
        .map(|tensor| {
            let (name, shape) = (&*tensor.name, &*tensor.shape);
            let described = StateTensor::new(name, tensor.dtype, shape, &tensor.bytes);
            match name {
                _ if name.starts_with("adam_") => described.of_optimizer(),
                _ if name.starts_with("frozen") => described.frozen(),
                _ => described,
            }
        })
        .collect();
    let config = MonitorConfig::parse(config)?;
    let strategy = (strategy != "-").then(|| Path::new(strategy));
    let mut monitor = CheckpointMonitor::new(world, config, Path::new(output), strategy)?;
    let at = |step: u64| State::new(&tensors, step);
    let (first, last): (u64, u64) = (
        first.parse().expect("a step"),
        last.parse().expect("a step"),
    );
    let mut failed = 0;
    for step in first..=last {
        if option("die=") == Some(step) && world.process() + 1 == world.size() {
            std::process::abort();
        }
        if let Some(pause) = option("pause=") {
            std::thread::sleep(std::time::Duration::from_millis(pause));
        }
        let breaks = option("fail=") == Some(step) && world.process() + 1 == world.size();
        let computed = if breaks {
            Err(Fault::new(Kind::Internal, "the loss is no number"))
        } else {
            Ok(())
        };
        if let Err(fault) = agree(world, computed) {
            let stands = monitor.fail(world, &at(step - 1))?;
            if world.process() == 0 {
                println!("step {} saved: {stands}", step - 1);
            }
            return Err(fault);
        }
        if let Err(fault) = monitor.step(world, || at(step)) {
            if world.process() == 0 {
                println!("step {step}: {fault}");
            }
            failed += 1;
        }
    }
    monitor.finish(world, &at(last))?;
    Ok(u32::from(failed > 0))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let world = World::start().expect("MPI");
    let result = train(&world, &args);
    if let Err(fault) = &result
        && world.process() == 0
    {
        eprintln!("error: {fault}");
    }
    world.finish().expect("MPI ends");
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(1) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}
