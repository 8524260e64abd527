//! The library's shortest program: distributed weights in another layout.
//!
//! ```sh
//! mpirun -n 4 target/release/examples/reshard OLD OLD.ckpt NEW NEW.ckpt
//! ```

#![allow(
    clippy::print_stdout,
    reason = "it is a program that says what it does"
)]

use shardloom::World;
use shardloom::fault::Result;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, source_strategy, destination, strategy] = &arguments[..] else {
        println!("reshard SRC SRC_STRATEGY DST DST_STRATEGY");
        return Ok(());
    };
    let world = World::start()?;
    let outcome = shardloom::reshard(source, destination)
        .source_strategy(source_strategy)
        .strategy(strategy)
        .run(&world)?;
    if world.process() == 0 {
        println!(
            "{} tensors in {} files",
            outcome.tensors,
            outcome.files.len()
        );
    }
    world.finish()
}
