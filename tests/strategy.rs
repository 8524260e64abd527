//! Strategy files against what MindSpore 2.10 wrote and made of them.

use crate::support::strategy::{bytes, json_file, read, with_files};
use serde_json::Value;
use shardloom::fault::{Fault, Kind, Result};
use shardloom::strategy::merge::{Merged, merge};
use shardloom::strategy::{Form, Strategy, StrategyFile, json, protobuf, show};
use std::collections::BTreeSet;
use std::sync::Arc;

fn refused(path: &str) -> Fault {
    let fault = read(path).unwrap_err();
    assert_eq!(fault.kind, Kind::Strategy, "{fault}");
    fault
}

// proves P98
#[test]
fn a_directory_is_read_as_its_merged_file() {
    for (directory, merged) in [
        ("merge_strategies/pb", "merge_strategies/merged/pb.ckpt"),
        ("merge_strategies/js", "merge_strategies/merged/js.json"),
        (
            "pipeline2/strategy",
            "pipeline2/merged/merged_ckpt_strategy.ckpt",
        ),
        (
            "pipeline_shared_param/strategy2",
            "pipeline_shared_param/merged2.ckpt",
        ),
    ] {
        let strategy = read(directory).unwrap();
        assert_eq!(strategy, read(merged).unwrap(), "{directory}");
        assert_eq!(
            (
                strategy.stages(),
                strategy.ranks_per_stage(),
                strategy.ranks()
            ),
            (2, 4, 8)
        );
    }
}

// proves P97
#[test]
fn both_forms_say_the_same() {
    let protobuf = read("merge_strategies/merged/pb.ckpt").unwrap();
    let json = read("merge_strategies/merged/js.json").unwrap();
    let differences = show::diff(&protobuf, &json);
    assert!(differences.is_empty(), "{differences:?}");
    let protobuf = read("opt_shard/strategy/src_size2.ckpt").unwrap();
    let json = read("opt_shard/strategy/src_size2.json").unwrap();
    let differences = show::diff(&protobuf, &json);
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn a_shared_parameter_has_a_layout_in_each_stage() {
    let strategy = read("pipeline_shared_param/merged2.ckpt").unwrap();
    let shared: Vec<_> = strategy
        .names()
        .filter(|name| strategy.layouts(name).len() == 2)
        .collect();
    assert!(!shared.is_empty());
    for name in shared {
        let layouts = strategy.layouts(name);
        assert_eq!((layouts[0].stage, layouts[1].stage), (0, 1));
    }
    assert!(strategy.layouts("nobody").is_empty());
}

#[test]
fn equal_layouts_are_stored_once() {
    let strategy = read("redundancy_maps/strategy/many.ckpt").unwrap();
    let layouts: BTreeSet<_> = strategy
        .iter()
        .map(|(_, l)| Arc::as_ptr(&l.layout))
        .collect();
    assert_eq!(layouts.len(), 2);
}

#[test]
fn flattened_json_fits_the_tensor_again() {
    let flat = read("multi_axis/strategy/multi_a.json").unwrap();
    let whole = read("multi_axis/strategy/multi_a.ckpt").unwrap();
    for (name, layout) in flat.iter() {
        let expected = &whole.layouts(name)[0].layout;
        let full: &[u64] = match name.rsplit('.').next() {
            Some("w1") => &[48, 24],
            Some("w2") => &[24, 48],
            _ => &[48],
        };
        let parts = expected.parts();
        let shard: Vec<u64> = full.iter().zip(&parts).map(|(size, n)| size / n).collect();
        assert_eq!(layout.fit_full(full).unwrap(), *expected, "{name}");
        assert_eq!(layout.fit_shard(&shard).unwrap(), *expected, "{name}");
        assert_eq!(whole.layouts(name)[0].fit_full(full).unwrap(), *expected);
    }
    assert!(show::diff(&flat, &whole).is_empty());
}

fn merged(directory: &str) -> Result<Merged> {
    with_files(directory, merge)
}

fn protobuf_content(bytes: &[u8]) -> (BTreeSet<String>, BTreeSet<String>) {
    let map = protobuf::decode(bytes).unwrap();
    assert_eq!(map.current_stage, 1);
    let operators = map.parallel_strategy_item.iter();
    let layouts = map.parallel_layout_item.iter();
    (
        operators.map(|item| format!("{item:?}")).collect(),
        layouts.map(|item| format!("{item:?}")).collect(),
    )
}

#[test]
fn merges_as_mindspore_does() {
    for (directory, expected) in [
        ("merge_strategies/pb", "merge_strategies/merged/pb.ckpt"),
        (
            "pipeline2/strategy",
            "pipeline2/merged/merged_ckpt_strategy.ckpt",
        ),
        (
            "pipeline_shared_param/strategy2",
            "pipeline_shared_param/merged2.ckpt",
        ),
    ] {
        let merged = merged(directory).unwrap();
        assert_eq!((merged.form, merged.stages), (Form::Protobuf, 2));
        assert_eq!(
            protobuf_content(&merged.bytes),
            protobuf_content(&bytes(expected)),
            "{directory}"
        );
    }
    let merged = merged("merge_strategies/js").unwrap();
    let ours: Value = serde_json::from_slice(&merged.bytes).unwrap();
    assert_eq!(ours, json_file("merge_strategies/merged/js.json"));
}

#[test]
fn merging_does_not_depend_on_the_order_of_files() {
    with_files("merge_strategies/pb", |files| {
        let mut files = files.to_vec();
        let first = merge(&files).unwrap();
        files.reverse();
        assert_eq!(merge(&files).unwrap(), first);
    });
}

#[test]
fn a_single_stage_is_merged_with_its_number() {
    let merged = with_files("bad_inputs/strategy/ok.ckpt", merge).unwrap();
    let map = protobuf::decode(&merged.bytes).unwrap();
    assert_eq!(map.parallel_layout_item[0].param_name, "0-w");
}

#[test]
fn refuses_to_merge_what_could_not_be_read_again() {
    for (directory, message) in [
        ("merge_strategies/mixed", "all protobuf or all JSON"),
        ("merge_strategies/nolayout", "holds no layouts"),
        ("merge_strategies/garbage", "not a strategy file"),
        ("merge_strategies/one_stage_only", "stage 0 is missing"),
        ("merge_strategies/merged/pb.ckpt", "is merged already"),
    ] {
        let fault = merged(directory).unwrap_err();
        assert_eq!(fault.kind, Kind::Strategy);
        assert!(fault.message.contains(message), "{directory}: {fault}");
        assert!(fault.file.unwrap().starts_with(directory));
    }
    let fault = merge(&[]).unwrap_err();
    assert!(fault.message.contains("no strategy files"), "{fault}");
    let other = bytes("bad_inputs/strategy/dev2.ckpt");
    let ok = bytes("bad_inputs/strategy/ok.ckpt");
    let files = [("a", &other), ("b", &ok)].map(|(name, bytes)| StrategyFile { name, bytes });
    let fault = merge(&files).unwrap_err();
    assert!(fault.message.contains("otherwise than 'a'"), "{fault}");
}

#[test]
fn refuses_bad_files_by_name() {
    for (file, message) in [
        ("empty.ckpt", "is empty"),
        ("garbage.ckpt", "not a strategy file in protobuf form"),
        ("no_layout.ckpt", "holds no layouts"),
        ("no_layout.json", "holds no layouts"),
        ("bad.json", "not a strategy file in JSON form"),
        ("axis_oob.ckpt", "names axis 3"),
        ("opt_no_rep.ckpt", "cuts nothing"),
        ("opt_bad_step.ckpt", "step is 1"),
        ("opt_toobig.ckpt", "doesn't divide"),
    ] {
        let path = format!("bad_inputs/strategy/{file}");
        let fault = refused(&path);
        assert!(fault.message.contains(message), "{file}: {fault}");
        assert_eq!(fault.file.as_ref(), Some(&path));
    }
    assert_eq!(
        refused("bad_inputs/strategy/axis_oob.ckpt")
            .tensor
            .as_deref(),
        Some("w")
    );
    let fault = refused("merge_strategies/merged/stage1_only.ckpt");
    assert!(fault.message.contains("stage 0 is missing"), "{fault}");
}

#[test]
fn a_layout_of_other_dimensions_than_the_tensor_is_refused() {
    let strategy = read("bad_inputs/strategy/wrong_rank.ckpt").unwrap();
    let fault = strategy.layouts("w")[0].fit_full(&[8, 8]).unwrap_err();
    assert_eq!(fault.kind, Kind::Shape);
}

#[test]
fn reads_names_with_dashes_that_mindspore_refuses() {
    for file in ["dash.ckpt", "dash2.ckpt"] {
        let strategy = read(&format!("bad_inputs/strategy/{file}")).unwrap();
        let names: Vec<_> = strategy.names().map(|name| &**name).collect();
        assert_eq!(names, ["my-w"]);
    }
}

#[test]
fn refuses_layouts_for_other_numbers_of_ranks() {
    let mut map = protobuf::decode(&bytes("bad_inputs/strategy/ok.ckpt")).unwrap();
    let mut item = map.parallel_layout_item[0].clone();
    item.param_name = "v".into();
    item.parallel_layouts.dev_matrix[0].dim = vec![2];
    map.parallel_layout_item.push(item);
    let bytes = protobuf::encode(&map);
    let file = StrategyFile {
        name: "s.ckpt",
        bytes: &bytes,
    };
    let fault = Strategy::read(&[file]).unwrap_err();
    assert_eq!(fault.tensor.as_deref(), Some("v"));
    assert_eq!(fault.file.as_deref(), Some("s.ckpt"));
}

#[test]
fn json_is_written_as_the_compiler_writes_it() {
    for file in ["js/strategy_rank_0.json", "js/strategy_rank_4.json"] {
        let original = bytes(&format!("merge_strategies/{file}"));
        let written = json::encode(&json::decode(&original).unwrap()).unwrap();
        assert_eq!(String::from_utf8(written), String::from_utf8(original));
    }
}
