//! The library from other programs: its examples, and one that has started MPI itself.

use crate::support::{self, command, example, mpirun, sample, tensors};
use command::alone;
use sample::Sample;

fn arguments(sample: &Sample, names: &[&str]) -> Vec<String> {
    let paths = names.iter().map(|name| sample.path(name));
    paths.map(|path| path.display().to_string()).collect()
}

// proves P9
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

// proves P9
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

/// A layout where a strategy is taken, of the model whose config.json lies beside the weights.
// proves P135
#[test]
fn takes_layouts_as_strategies() {
    let room = tempfile::tempdir().expect("a directory");
    let model = support::fixtures::data().join("model/glm4/hf");
    let model = model.display().to_string();
    let at = |name: &str| room.path().join(name).display().to_string();
    let cut = |destination: &str, layout: &str| {
        let flags = ["--dst", destination, "--dst-strategy", layout];
        alone(&[&["import", "--hf", &model][..], &flags].concat()).succeeds();
    };
    cut(&at("old"), "dp=2,tp=2");
    cut(&at("due"), "dp=1,tp=2,pp=2");
    std::fs::copy(format!("{model}/config.json"), at("old/config.json")).expect("a copy");
    for processes in [1, 4] {
        let out = at(&format!("out{processes}"));
        let arguments = [&at("old"), "dp=2,tp=2", &out, "dp=1,tp=2,pp=2"];
        mpirun(processes, &example("reshard"), &arguments, &[]).succeeds();
        for rank in 0..4 {
            let of = |place: &str| {
                let place = format!("{place}/rank_{rank}");
                let files = support::fixtures::listing(place.as_ref());
                let weights = files
                    .iter()
                    .find(|file| file.extension().is_some_and(|e| e == "safetensors"));
                let path = std::path::Path::new(&place).join(weights.expect("weights"));
                tensors::read(&path).expect("tensors").tensors
            };
            assert_eq!(of(&out), of(&at("due")), "rank {rank}");
        }
    }
}
