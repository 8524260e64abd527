//! Strategies that a trainer's scripts leave beside ranks' files are no weights.

use crate::support::command::{alone, error_line};
use crate::support::oracle::Strategy;
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{self, Tensor, Tensors};
use std::fs;

const NAMES: [&str; 3] = [
    "merged_strategy.ckpt",
    "merged_ckpt_strategy.ckpt",
    "ckpt_strategy_rank_0_rank_0.ckpt",
];

fn sample() -> Sample {
    let whole = Tensors::from([
        ("w.weight".to_owned(), Tensor::counting("F32", &[8, 4], 1)),
        ("v.weight".to_owned(), Tensor::counting("BF16", &[4, 8], 2)),
    ]);
    let of = |maps: [&[i64]; 2], mesh: &[usize]| {
        let layouts = maps.map(|map| layout(mesh, map));
        Strategy::of(
            &["w.weight", "v.weight"]
                .into_iter()
                .zip(layouts)
                .collect::<Vec<_>>(),
        )
    };
    Sample::of(
        whole,
        of([&[1, -1], &[-1, 0]], &[2, 2]),
        of([&[0, -1], &[-1, 0]], &[2]),
    )
}

#[test]
fn a_strategy_beside_rank_directories_is_no_weights() {
    let sample = sample();
    for name in NAMES {
        let beside = sample.path("src").join(name);
        fs::copy(sample.path("four.ckpt"), &beside).unwrap();
        let shown = alone(&sample.args("inspect @src")).succeeds();
        assert!(shown.stdout.contains("4 ranks"), "{name}: {shown:#?}");
        let without = alone(&sample.args("unify --src @src --dst @full2"));
        error_line(&without);
        let hint = format!("give --src-strategy {}", beside.display());
        assert!(without.stderr.contains(&hint), "{without:#?}");
        let to = "to @two.ckpt --src @src --dst @two --overwrite --yes";
        alone(&sample.args(to)).succeeds();
        sample.check("two", &sample.two, &sample.whole);
        for strategy in ["@four.ckpt", &format!("@src/{name}")] {
            let line = format!(
                "reshard --src @src --src-strategy {strategy} --dst-strategy @two.ckpt --overwrite --dst @two"
            );
            alone(&sample.args(&line)).succeeds();
            sample.check("two", &sample.two, &sample.whole);
        }
        fs::remove_file(beside).unwrap();
    }
}

#[test]
fn a_strategy_beside_ranks_files_is_no_weights() {
    let sample = sample();
    fs::create_dir(sample.path("flat")).unwrap();
    for rank in 0..4 {
        let file = fs::read_dir(sample.path(&format!("src/rank_{rank}"))).unwrap();
        let file = file
            .map(|file| file.unwrap().path())
            .find(|file| file.extension().is_some_and(|end| end == "safetensors"));
        fs::copy(
            file.unwrap(),
            sample.path(&format!("flat/net_rank_{rank}.safetensors")),
        )
        .unwrap();
    }
    for name in [None, Some(NAMES[0]), Some(NAMES[1]), Some(NAMES[2])] {
        if let Some(name) = name {
            fs::copy(sample.path("four.ckpt"), sample.path("flat").join(name)).unwrap();
        }
        let shown = alone(&sample.args("inspect @flat")).succeeds();
        assert!(shown.stdout.contains("4 ranks"), "{name:?}: {shown:#?}");
        let refused = alone(&sample.args("unify --src @flat --src-strategy @four.ckpt --dst @out"));
        assert!(
            error_line(&refused).contains("has 4 weight files"),
            "{refused:#?}"
        );
        let pattern =
            "flat/net_rank_{rank}.safetensors', with --src-strategy, takes them for ranks' files";
        assert!(refused.stderr.contains(pattern), "{refused:#?}");
        let line = "unify --src @flat/net_rank_{rank}.safetensors --src-strategy @four.ckpt --overwrite --dst @out";
        alone(&sample.args(line)).succeeds();
        let found = tensors::read(&sample.path("out/model-00001-of-00001.safetensors")).unwrap();
        tensors::compare(&sample.whole, &found.tensors).unwrap();
        alone(&sample.args("convert @flat --to ckpt --overwrite --dst @other")).succeeds();
        let written = fs::read_dir(sample.path("other")).unwrap();
        let names = written.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(
            names.filter(|name| name.ends_with(".ckpt")).count(),
            4,
            "{name:?}"
        );
        if let Some(name) = name {
            fs::remove_file(sample.path("flat").join(name)).unwrap();
        }
    }
}
