//! A program that has started MPI itself, and uses the library over half of its processes:
//! `library_check SRC OLD NEW OUT`.
//!
//! The lower half reshards SRC to OUT, then each of it loads the shards of its rank into memory and
//! compares them with what was written. The upper half goes on with messages of its own.

#![allow(clippy::expect_used, clippy::print_stdout)]

use mpi::topology::Color;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use shardloom::World;
use shardloom::memory::Buffer;
use std::path::Path;

fn main() {
    let (universe, _) = mpi::initialize_with_threading(mpi::Threading::Funneled).expect("MPI");
    let all = universe.world();
    let lower = all.rank() < (all.size() + 1) / 2;
    let color = Color::with_value(i32::from(!lower));
    let part = all.split_by_color(color).expect("a communicator");
    if lower {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        work(&part, &arguments);
    } else {
        for number in 0..100 {
            let mut value = number;
            part.process_at_rank(0).broadcast_into(&mut value);
            assert_eq!(value, number);
        }
    }
    all.barrier();
    if all.rank() == 0 {
        println!("MPI goes on");
    }
}

fn work(part: &impl Communicator, arguments: &[String]) {
    let [source, old, new, out] = arguments else {
        unreachable!("library_check SRC OLD NEW OUT")
    };
    let world = World::from_communicator(part).expect("a world");
    let outcome = shardloom::reshard(source, out)
        .source_strategy(old)
        .strategy(new)
        .run(&world)
        .expect("resharded");
    assert!(outcome.ok, "{outcome:?}");

    let rank = world.process();
    let load = shardloom::load(source).source_strategy(old).strategy(new);
    let shards = load.shards(&world, rank).expect("planned");
    let written = Path::new(out).join(format!("rank_{rank}/net{rank}.safetensors"));
    let written = std::fs::read(written).expect("the rank's file");
    let written = safetensors::SafeTensors::deserialize(&written).expect("safetensors");
    assert_eq!(shards.len(), written.len());
    let mut memory: Vec<Vec<u8>> = shards
        .iter()
        .map(|shard| vec![0; usize::try_from(shard.bytes).expect("small")])
        .collect();
    let mut buffers: Vec<Buffer<'_>> = shards
        .iter()
        .zip(&mut memory)
        .map(|(shard, bytes)| Buffer::new(&shard.name, shard.dtype, &shard.shape, bytes))
        .collect();
    load.into_buffers(&world, rank, &mut buffers)
        .expect("loaded");
    for (shard, bytes) in shards.iter().zip(&memory) {
        let view = written.tensor(&shard.name).expect("the tensor");
        assert_eq!(view.data(), bytes, "{}", shard.name);
    }

    // What is damaged is mended of the other layout.
    let damaged = Path::new(out).join("rank_0/net0.safetensors");
    let good = std::fs::read(&damaged).expect("a file");
    part.barrier();
    if rank == 0 {
        let mut bytes = good.clone();
        *bytes.last_mut().expect("a byte") ^= 1;
        std::fs::write(&damaged, bytes).expect("written");
    }
    part.barrier();
    let repair = shardloom::repair(out).from(source);
    let repair = repair.source_strategy(old).strategy(new);
    let outcome = repair.run(&world).expect("repaired");
    assert!(outcome.ok, "{outcome:?}");
    let mended = std::fs::read(&damaged).expect("a file");
    assert_eq!(mended, good);

    // A tensor without a buffer is an error on all, and the world is still there.
    let mut one = vec![0; memory[0].len()];
    let first = &shards[0];
    let mut too_few = [Buffer::new(
        &first.name,
        first.dtype,
        &first.shape,
        &mut one,
    )];
    let refused = load.into_buffers(&world, rank, &mut too_few);
    let fault = refused.expect_err("a tensor has no buffer");
    assert_eq!(fault.kind, shardloom::fault::Kind::UnknownTensor, "{fault}");
    world.finish().expect("finished");
}
