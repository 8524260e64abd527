//! What a source's strategy has and no file: layers that aren't there are missing, what a job never saved is not.

use crate::support::command::{alone, nothing_written, refuses, under_mpi};
use crate::support::oracle::Strategy;
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{Tensor, Tensors};

const CUT: [i64; 2] = [0, -1];

fn sample(saved: &[&str], known: &[&str]) -> Sample {
    let whole: Tensors = saved
        .iter()
        .zip(1..)
        .map(|(name, first)| ((*name).to_owned(), Tensor::counting("F32", &[8, 4], first)))
        .collect();
    let strategy = |parts: usize| {
        let cuts: Vec<_> = known
            .iter()
            .map(|name| (*name, layout(&[parts], &CUT)))
            .collect();
        Strategy::of(&cuts)
    };
    Sample::of(whole, strategy(4), strategy(2))
}

const LINES: [&str; 2] = [
    "unify --src @src --src-strategy @four.ckpt --dst @out",
    "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @out",
];

#[test]
fn layers_that_no_file_has_are_missing() {
    for (saved, lacks) in [
        (&["layers.0.w", "layers.2.w"][..], "layers.1.w"),
        (&["layers.1.e.0.w", "layers.1.e.2.w"], "layers.1.e.1.w"),
        (
            &["layers.0.w", "layers.1.w", "adam_m.layers.0.w"],
            "adam_m.layers.1.w",
        ),
        (
            &["layers.0.w", "adam_m.layers.0.w", "head", "adam_m.tail"],
            "tail",
        ),
        (
            &["head", "tail", "adam_m.head", "adam_m.tail", "adam_v.tail"],
            "adam_v.head",
        ),
    ] {
        let known: Vec<&str> = saved.iter().copied().chain([lacks]).collect();
        let sample = sample(saved, &known);
        for line in LINES {
            for run in [alone(&sample.args(line)), under_mpi(4, &sample.args(line))] {
                refuses(&run, lacks);
                assert!(run.stderr.contains("no rank has"), "{run:?}");
                nothing_written(&sample);
            }
            alone(&sample.args(&format!("{line} --unmatched drop"))).succeeds();
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
            // Of what isn't wanted nothing is missing.
            alone(&sample.args(&format!("{line} --filter-out-param-prefix {lacks}"))).succeeds();
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
        }
    }
}

#[test]
fn what_a_job_never_saved_is_no_loss() {
    for (saved, more) in [
        (
            &["layers.0.w", "layers.1.w"][..],
            &["adam_m.layers.0.w", "adam_m.layers.1.w"][..],
        ),
        (
            &["layers.0.w", "layers.1.w"],
            &["layers.0.b", "layers.1.b", "norm"],
        ),
        (&["layers.0.w"], &["mtp.0.w"]),
    ] {
        let known: Vec<&str> = saved.iter().chain(more).copied().collect();
        let sample = sample(saved, &known);
        for line in LINES {
            alone(&sample.args(line)).succeeds();
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
        }
    }
}

/// Names that begin otherwise are looked at as they will be.
#[test]
fn prefixes_hide_nothing_that_lacks() {
    let saved = ["module.layers.0.w", "module.layers.2.w"];
    let known = [saved[0], saved[1], "layers.0.w", "layers.1.w", "layers.2.w"];
    let sample = sample(&saved, &known);
    for line in LINES {
        let line = format!("{line} --strip-prefix module.");
        let run = alone(&sample.args(&line));
        refuses(&run, "layers.1.w");
        assert!(run.stderr.contains("no rank has"), "{run:?}");
        alone(&sample.args(&format!("{line} --unmatched drop"))).succeeds();
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
}
