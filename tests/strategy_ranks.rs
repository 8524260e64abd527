//! Which rank keeps and which ranks are needed, against what MindSpore 2.10 says.

use crate::support::strategy::{json_file, read};
use shardloom::layout::keep::Keep;
use shardloom::strategy::Strategy;
use shardloom::strategy::rank_list::needed_ranks;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
        let mindspore: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_value(json_file(expected)["kept"].clone()).unwrap();
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

/// Whether the needed ranks hold every source cell that meets the destination cell of `rank`: by
/// looking at all source ranks, fractions compared by cross-multiplication.
fn assert_complete(source: &Strategy, destination: Option<&Strategy>, rank: u32) {
    let needed = needed_ranks(rank, Some(source), destination);
    let (size, ranks) = (
        source.ranks_per_stage(),
        destination.map_or(1, Strategy::ranks_per_stage),
    );
    for name in source.names() {
        let held = &source.layouts(name)[0];
        let (parts, dimensions) = (held.layout.parts(), held.layout.dimensions());
        let (cell, cuts) = match destination.map(|d| d.layout_in(name, rank / ranks)) {
            None => (vec![0; dimensions], vec![1; dimensions]),
            Some(None) => continue,
            Some(Some(wanted)) => (wanted.layout.cell(rank % ranks), wanted.layout.parts()),
        };
        for other in 0..size {
            let theirs = held.layout.cell(other);
            let meets = (0..dimensions).all(|d| {
                theirs[d] * cuts[d] < (cell[d] + 1) * parts[d]
                    && cell[d] * parts[d] < (theirs[d] + 1) * cuts[d]
            });
            let first = held.stage * size;
            let served = held
                .layout
                .holders(&theirs)
                .any(|holder| needed.contains(&(first + holder)));
            assert!(!meets || served, "{name}: {theirs:?} for rank {rank}");
        }
    }
}

#[test]
fn needs_all_that_it_takes_and_no_rank_that_mindspore_does_not_list() {
    for (source, destination, expected) in RANK_LISTS {
        let source = read(source).unwrap();
        let destination = (!destination.is_empty()).then(|| read(destination).unwrap());
        let mindspore: BTreeMap<u32, BTreeSet<u32>> =
            serde_json::from_value(json_file(expected)).unwrap();
        for (rank, listed) in mindspore {
            let needed = needed_ranks(rank, Some(&source), destination.as_ref());
            assert!(
                needed.is_subset(&listed),
                "{expected} rank {rank}: {needed:?}, MindSpore {listed:?}"
            );
            assert_complete(&source, destination.as_ref(), rank);
        }
    }
}

#[test]
fn ranks_of_counts_that_mindspore_refuses_are_found() {
    let source = read("reshard_8_to_6/strategy/src.ckpt").unwrap();
    let destination = read("reshard_8_to_6/strategy/dst.ckpt").unwrap();
    for rank in 0..destination.ranks() {
        assert_complete(&source, Some(&destination), rank);
    }
}
