//! The library from other programs: its examples, and one that has started MPI itself.

#![allow(clippy::expect_used, unreachable_pub)]

mod support;

use command::alone;
use sample::Sample;
use support::{command, example, mpirun, sample, tensors};

fn arguments(sample: &Sample, names: &[&str]) -> Vec<String> {
    let paths = names.iter().map(|name| sample.path(name));
    paths.map(|path| path.display().to_string()).collect()
}

#[test]
fn joins_a_program_that_has_started_mpi() {
    for processes in [4, 3] {
        let sample = Sample::new();
        let arguments = arguments(&sample, &["src", "four.ckpt", "two.ckpt", "out"]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = mpirun(processes, &example("library_check"), &arguments, &[]).succeeds();
        assert_eq!(run.stdout.trim(), "MPI goes on", "{run:#?}");
        sample.check("out", &sample.two, &sample.whole);
    }
}

#[test]
fn the_example_of_a_job_reshards() {
    for processes in [1, 4] {
        let sample = Sample::new();
        let arguments = arguments(&sample, &["src", "four.ckpt", "out", "two.ckpt"]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = mpirun(processes, &example("reshard"), &arguments, &[]).succeeds();
        assert_eq!(run.stdout.trim(), "3 tensors in 2 files", "{run:#?}");
        sample.check("out", &sample.two, &sample.whole);
    }
}

#[test]
fn the_example_of_memory_has_each_ranks_bytes() {
    let sample = Sample::new();
    let arguments = arguments(&sample, &["src", "four.ckpt", "two.ckpt"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = mpirun(2, &example("load_into_memory"), &arguments, &[]).succeeds();
    for rank in 0..2 {
        let shards = sample.two.cut(&sample.whole, rank).expect("it can be cut");
        let bytes = shards.values().flat_map(|tensor| &tensor.data);
        let sum: u64 = bytes.map(|byte| u64::from(*byte)).sum();
        let line = format!("rank {rank}: 3 tensors, bytes add up to {sum} (");
        assert!(run.stdout.contains(&line), "{line}: {run:#?}");
    }
    let line = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    let load = |processes: u32| {
        let cut = self::arguments(&sample, &["cut", "four.ckpt", "two.ckpt"]);
        let cut: Vec<&str> = cut.iter().map(String::as_str).collect();
        mpirun(processes, &example("load_into_memory"), &cut, &[])
    };
    load(2).succeeds();
    tensors::damage(&sample.path("cut/rank_2/net.safetensors"), "w2");
    let run = load(2).fails();
    let words = "cut/rank_2/net.safetensors: w2: its bytes are not as they were";
    assert!(run.stderr.contains(words), "{run:#?}");
}
