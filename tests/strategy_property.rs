//! Strategy files made at random: written and read again, damaged, and merged.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use shardloom::layout::keep::Keep;
use shardloom::layout::{Layout, OptimizerShard};
use shardloom::strategy::merge::merge;
use shardloom::strategy::{StageLayout, Strategy, StrategyFile, json, protobuf};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A layout for 8 ranks; `several` axes may cut a dimension.
fn layout(several: bool) -> impl proptest::strategy::Strategy<Value = Layout> {
    let mesh = prop::sample::select(vec![
        vec![8u64],
        vec![2, 4],
        vec![4, 2],
        vec![2, 2, 2],
        vec![1, 8],
        vec![2, 1, 4],
    ]);
    let places = vec(0usize..4, 3);
    (mesh, 0usize..4, places, any::<bool>(), 1i64..5).prop_map(
        move |(mesh, dimensions, places, reverse, size)| {
            let mut map = vec![Vec::new(); dimensions];
            for (axis, place) in (0..mesh.len()).zip(places) {
                match map.get_mut(place) {
                    Some(cuts) if several || cuts.is_empty() => {
                        cuts.push(i64::try_from(axis).unwrap());
                    }
                    _ => {}
                }
            }
            if reverse {
                map.iter_mut().for_each(|cuts| cuts.reverse());
            }
            let size = if size == 3 { -1 } else { size };
            let shards = (1..=8).map(|step| Some(OptimizerShard { step, size }));
            let mut fitting = shards.filter_map(|shard| Layout::new(&mesh, &map, shard).ok());
            fitting
                .next()
                .unwrap_or_else(|| Layout::new(&mesh, &map, None).unwrap())
        },
    )
}

fn strategy(several: bool) -> impl proptest::strategy::Strategy<Value = Strategy> {
    let name = "[a-c0-2]{1,3}[.-]?[a-c]?";
    let tensors = btree_map((name, 0u32..3), layout(several), 1..12);
    tensors.prop_map(|tensors| {
        let present: BTreeSet<u32> = tensors.keys().map(|(_, stage)| *stage).collect();
        let present: Vec<u32> = present.into_iter().collect();
        let layouts = tensors.into_iter().map(|((name, stage), layout)| {
            let stage = u32::try_from(present.binary_search(&stage).unwrap()).unwrap();
            (Arc::from(name), StageLayout::new(stage, layout))
        });
        let stages = u32::try_from(present.len()).unwrap();
        Strategy::from_layouts(stages, 8, layouts.collect::<Vec<_>>()).unwrap()
    })
}

fn read(name: &str, bytes: &[u8]) -> shardloom::fault::Result<Strategy> {
    Strategy::read(&[StrategyFile { name, bytes }])
}

/// Everything that can be asked of a strategy that a damaged file gave.
fn use_it(strategy: &Strategy) {
    for (_, layout) in strategy.iter() {
        let _ = layout.fit_full(&[4, 6]);
        let _ = layout.fit_shard(&[2]);
        let layout = &layout.layout;
        if layout.ranks() < 1 << 16 {
            assert!(layout.holders(&layout.cell(0)).any(|rank| rank == 0));
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_as_protobuf_is_read_again(strategy in strategy(true)) {
        let bytes = strategy.to_protobuf().unwrap();
        prop_assert_eq!(read("s.ckpt", &bytes).unwrap(), strategy);
    }

    #[test]
    fn what_is_written_as_json_is_read_again(strategy in strategy(false)) {
        let bytes = strategy.to_json().unwrap();
        prop_assert_eq!(read("s.json", &bytes).unwrap(), strategy);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for name in ["s.ckpt", "s.json"] {
            if let Ok(strategy) = read(name, &bytes) {
                use_it(&strategy);
            }
        }
    }

    #[test]
    fn damaged_files_never_panic(
        strategy in strategy(false),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let files = [
            ("s.ckpt", strategy.to_protobuf().unwrap()),
            ("s.json", strategy.to_json().unwrap()),
        ];
        for (name, mut bytes) in files {
            for (place, value) in &edits {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
            if truncate {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(strategy) = read(name, &bytes) {
                use_it(&strategy);
            }
            let _ = merge(&[StrategyFile { name, bytes: &bytes }]);
        }
    }

    #[test]
    fn messages_survive_encoding(bytes in vec(any::<u8>(), 0..100)) {
        if let Ok(map) = protobuf::decode(&bytes) {
            let again = protobuf::encode(&map);
            prop_assert_eq!(protobuf::decode(&again).unwrap(), map);
        }
        if let Ok(document) = json::decode(&bytes) {
            let again = json::encode(&document).unwrap();
            prop_assert_eq!(json::decode(&again).unwrap(), document);
        }
    }

    #[test]
    fn every_cell_is_kept_by_one_rank(layouts in vec(layout(true), 1..10)) {
        let layouts: Vec<_> = layouts.into_iter().map(Arc::new).collect();
        let names: Vec<String> = (0..layouts.len()).map(|i| format!("w{i}")).collect();
        let keep = Keep::new(names.iter().map(|name| &**name).zip(layouts.iter().cloned()));
        for (name, layout) in names.iter().zip(&layouts) {
            let kept = (0..8).filter(|rank| keep.keeps(name, *rank));
            let cells: BTreeSet<_> = kept.clone().map(|rank| layout.cell(rank)).collect();
            prop_assert_eq!(cells.len(), kept.count());
            prop_assert_eq!(cells.len() as u64, layout.parts().iter().product::<u64>());
        }
    }
}
