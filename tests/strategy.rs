//! Strategy files against what MindSpore 2.10 wrote and made of them.

use serde_json::Value;
use shardloom::fault::{Fault, Kind, Result};
use shardloom::layout::keep::Keep;
use shardloom::strategy::merge::{Merged, merge};
use shardloom::strategy::rank_list::needed_ranks;
use shardloom::strategy::{Form, Strategy, StrategyFile, json, protobuf, show};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(data(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads one file, or all files of a directory.
fn with_files<T>(path: &str, f: impl FnOnce(&[StrategyFile]) -> T) -> T {
    let mut paths = vec![path.to_string()];
    if data(path).is_dir() {
        let names = std::fs::read_dir(data(path)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        paths = names.map(|name| format!("{path}/{name}")).collect();
    }
    let read: Vec<_> = paths.iter().map(|path| (path, bytes(path))).collect();
    let files = read
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes });
    f(&files.collect::<Vec<_>>())
}

fn read(path: &str) -> Result<Strategy> {
    with_files(path, Strategy::read)
}

fn json_file(path: &str) -> Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}

fn map_of<T: serde::de::DeserializeOwned>(value: &Value) -> BTreeMap<String, T> {
    serde_json::from_value(value.clone()).unwrap()
}

fn refused(path: &str) -> Fault {
    let fault = read(path).unwrap_err();
    assert_eq!(fault.kind, Kind::Strategy, "{fault}");
    fault
}

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

#[test]
fn both_forms_say_the_same() {
    let protobuf = read("merge_strategies/merged/pb.ckpt").unwrap();
    let json = read("merge_strategies/merged/js.json").unwrap();
    let differences = show::diff(&protobuf, &json);
    assert!(differences.is_empty(), "{differences}");
    let protobuf = read("opt_shard/strategy/src_size2.ckpt").unwrap();
    let json = read("opt_shard/strategy/src_size2.json").unwrap();
    let differences = show::diff(&protobuf, &json);
    assert!(differences.is_empty(), "{differences}");
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

/// Redundancy maps of MindSpore: strategy, expected file.
const KEPT: [(&str, &str); 15] = [
    (
        "redundancy_maps/strategy/dp8.ckpt",
        "redundancy_maps/dp8.json",
    ),
    (
        "redundancy_maps/strategy/mix.ckpt",
        "redundancy_maps/mix.json",
    ),
    (
        "redundancy_maps/strategy/opt.ckpt",
        "redundancy_maps/opt.json",
    ),
    (
        "redundancy_maps/strategy/many.ckpt",
        "redundancy_maps/many.json",
    ),
    (
        "dp_only/strategy/ckpt_strategy_rank_0.ckpt",
        "dp_only/redundancy.json",
    ),
    (
        "tp_dp_remove_redundancy/strategy/ckpt_strategy_rank_0.ckpt",
        "tp_dp_remove_redundancy/redundancy.json",
    ),
    ("expert3d/strategy/moe.ckpt", "expert3d/redundancy.json"),
    (
        "expert3d/strategy/moe_opt.ckpt",
        "expert3d/redundancy_opt.json",
    ),
    (
        "opt_shard/strategy/src_size2.ckpt",
        "opt_shard/redundancy_size2.json",
    ),
    (
        "opt_shard/strategy/dst_full_size.ckpt",
        "opt_shard/redundancy_size-1.json",
    ),
    (
        "opt_shard_odd_axis_order/strategy/map01.ckpt",
        "opt_shard_odd_axis_order/redundancy_map01.json",
    ),
    (
        "opt_shard_odd_axis_order/strategy/map02.ckpt",
        "opt_shard_odd_axis_order/redundancy_map02.json",
    ),
    (
        "opt_shard_odd_axis_order/strategy/opt_map01.ckpt",
        "opt_shard_odd_axis_order/redundancy_opt_map01.json",
    ),
    (
        "opt_shard_odd_axis_order/strategy/opt_map02.ckpt",
        "opt_shard_odd_axis_order/redundancy_opt_map02.json",
    ),
    (
        "opt_shard_replicated_axis/strategy/rep_opt2.ckpt",
        "opt_shard_replicated_axis/redundancy.json",
    ),
];

fn keep_of_stage(strategy: &Strategy, stage: u32) -> Keep {
    let layouts = strategy.iter().filter(|(_, layout)| layout.stage == stage);
    Keep::new(layouts.map(|(name, layout)| (Arc::clone(name), Arc::clone(&layout.layout))))
}

#[test]
fn keeps_the_replicas_that_mindspore_keeps() {
    for (strategy, expected) in KEPT {
        let strategy = read(strategy).unwrap();
        let keep = keep_of_stage(&strategy, 0);
        let mindspore: BTreeMap<String, BTreeSet<String>> = map_of(&json_file(expected)["kept"]);
        for rank in 0..strategy.ranks() {
            let kept = keep
                .kept_by(rank)
                .iter()
                .map(|name| name.to_string())
                .collect();
            let wanted = mindspore
                .get(&rank.to_string())
                .cloned()
                .unwrap_or_default();
            assert_eq!(wanted, kept, "{expected} rank {rank}");
            let keeps = strategy.names().filter(|name| keep.keeps(name, rank));
            assert_eq!(wanted, keeps.map(|name| name.to_string()).collect());
        }
    }
}

#[test]
fn keeps_a_first_stage_as_the_merged_map_says() {
    for (strategy, expected) in [
        (
            "pipeline2/merged/merged_ckpt_strategy.ckpt",
            "pipeline2/redundancy_merged.json",
        ),
        (
            "pipeline_shared_param/merged.ckpt",
            "pipeline_shared_param/redundancy_merged.json",
        ),
        (
            "opt_shard_pipeline/merged.ckpt",
            "opt_shard_pipeline/redundancy.json",
        ),
    ] {
        let strategy = read(strategy).unwrap();
        let keep = keep_of_stage(&strategy, 0);
        let mindspore: BTreeMap<u32, Vec<String>> =
            serde_json::from_value(json_file(expected)["kept"].clone()).unwrap();
        for (rank, wanted) in mindspore {
            let wanted = wanted.iter().filter_map(|name| name.strip_prefix("0-"));
            let kept = keep.kept_by(rank);
            assert!(
                wanted.eq(kept.iter().map(|name| &**name)),
                "{expected} rank {rank}"
            );
        }
    }
}

#[test]
fn every_cell_is_kept_once_where_mindspore_loses_some() {
    for strategy in [
        "known_bad_dedup/strategy/multi_a.ckpt",
        "known_bad_dedup/strategy/rep_opt.ckpt",
        "known_bad_dedup/strategy/outer_mp_opt.ckpt",
        "multi_axis/strategy/multi_a.ckpt",
        "opt_shard_replicated_axis/strategy/rep_opt_all.ckpt",
    ] {
        let strategy = read(strategy).unwrap();
        let keep = keep_of_stage(&strategy, 0);
        for (name, layout) in strategy.iter() {
            let ranks = (0..strategy.ranks()).filter(|rank| keep.keeps(name, *rank));
            let cells: Vec<_> = ranks.map(|rank| layout.layout.cell(rank)).collect();
            let distinct: BTreeSet<_> = cells.iter().collect();
            assert_eq!(cells.len(), distinct.len(), "{name}");
            assert_eq!(
                cells.len() as u64,
                layout.layout.parts().iter().product::<u64>()
            );
        }
    }
}

/// Rank lists of MindSpore: source, destination (full weights if empty), expected file.
const RANK_LISTS: [(&str, &str, &str); 12] = [
    (
        "expert3d/strategy/moe.ckpt",
        "expert3d/strategy/moe_ep2tp2.ckpt",
        "expert3d/rank_list.json",
    ),
    (
        "multi_axis/strategy/multi_a.ckpt",
        "multi_axis/strategy/tp4.ckpt",
        "multi_axis/rank_list.json",
    ),
    (
        "opt_shard/strategy/src_size2.ckpt",
        "opt_shard/strategy/dst_full_size.ckpt",
        "opt_shard/rank_list.json",
    ),
    (
        "opt_shard_pipeline/merged.ckpt",
        "",
        "opt_shard_pipeline/rank_list.json",
    ),
    (
        "opt_shard_replicated_axis/strategy/rep_opt2.ckpt",
        "opt_shard_replicated_axis/strategy/rep_opt_all.ckpt",
        "opt_shard_replicated_axis/rank_list.json",
    ),
    (
        "pipeline2/merged/merged_ckpt_strategy.ckpt",
        "pipeline2/dst_merged.ckpt",
        "pipeline2/rank_list.json",
    ),
    (
        "pipeline2/merged/merged_ckpt_strategy.ckpt",
        "",
        "pipeline2/rank_list_to_full.json",
    ),
    (
        "pipeline_to_flat/src_merged.ckpt",
        "pipeline_to_flat/strategy_dst/tp8.ckpt",
        "pipeline_to_flat/rank_list_to_tp8.json",
    ),
    (
        "reshard_2_to_6/strategy/src.ckpt",
        "reshard_2_to_6/strategy/dst.ckpt",
        "reshard_2_to_6/rank_list.json",
    ),
    (
        "reshard_4_to_8/strategy/src.ckpt",
        "reshard_4_to_8/strategy/dst.ckpt",
        "reshard_4_to_8/rank_list.json",
    ),
    (
        "reshard_8_to_4/strategy/src.ckpt",
        "reshard_8_to_4/strategy/dst.ckpt",
        "reshard_8_to_4/rank_list.json",
    ),
    (
        "tp_column_row/strategy/src.ckpt",
        "tp_column_row/strategy/dst_tp2.ckpt",
        "tp_column_row/rank_list_tp4_to_tp2.json",
    ),
];

#[test]
fn needs_no_rank_that_mindspore_does_not_list() {
    let mut equal = 0;
    for (source, destination, expected) in RANK_LISTS {
        let source = read(source).unwrap();
        let destination = (!destination.is_empty()).then(|| read(destination).unwrap());
        let mindspore: BTreeMap<u32, BTreeSet<u32>> =
            serde_json::from_value(json_file(expected)).unwrap();
        for (rank, listed) in mindspore {
            let needed = needed_ranks(rank, Some(&source), destination.as_ref());
            assert!(
                !needed.is_empty() && needed.is_subset(&listed),
                "{expected} rank {rank}: {needed:?}, MindSpore {listed:?}"
            );
            equal += u32::from(needed == listed);
        }
    }
    assert!(equal >= 20, "only {equal} are equal");
    let source = read("reshard_8_to_6/strategy/src.ckpt").unwrap();
    let destination = read("reshard_8_to_6/strategy/dst.ckpt").unwrap();
    assert!(!needed_ranks(5, Some(&source), Some(&destination)).is_empty());
}
