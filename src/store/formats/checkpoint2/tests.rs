use super::*;
use crate::layout::{Layout, OptimizerShard};
use std::sync::Arc;

fn layout(mesh: &[u64], map: &[i64], optimizer: Option<(i64, i64)>) -> Layout {
    let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
    let optimizer = optimizer.map(|(step, size)| OptimizerShard { step, size });
    Layout::new(mesh, &map, optimizer).unwrap()
}

// proves P123
#[test]
fn folds_optimizer_shards_as_mindspore_does() {
    let folded = |mesh: &[u64], map: &[i64], shard| fold(&layout(mesh, map, Some(shard))).unwrap();
    assert_eq!(
        folded(&[4, 2], &[0, -1], (2, -1)),
        (vec![4, 2], vec![vec![0, 1], vec![]])
    );
    assert_eq!(
        folded(&[4, 2], &[0, -1], (2, 4)),
        (vec![4, 2], vec![vec![0, 1], vec![]])
    );
    assert_eq!(
        folded(&[4, 2], &[0, -1], (2, 2)),
        (vec![2, 2, 2], vec![vec![0, 1], vec![]])
    );
    assert_eq!(
        folded(&[2, 2, 2], &[-1, 0], (2, 2)),
        (vec![2, 2, 2], vec![vec![1], vec![0]])
    );
    assert_eq!(
        folded(&[8], &[-1, -1], (1, 2)),
        (vec![4, 2], vec![vec![0], vec![]])
    );
}

#[test]
fn a_folded_layout_gives_every_rank_the_same_cell() {
    for original in [
        layout(&[4, 2], &[0, -1], Some((2, 2))),
        layout(&[4, 2], &[-1, 0], Some((2, -1))),
        layout(&[2, 2, 2], &[-1, 1], Some((1, 2))),
        layout(&[8], &[-1], Some((1, 4))),
        layout(&[2, 4], &[0], None),
    ] {
        let (mesh, map) = fold(&original).unwrap();
        let map: Vec<Vec<i64>> = map
            .iter()
            .map(|axes| {
                axes.iter()
                    .map(|axis| i64::try_from(*axis).unwrap())
                    .collect()
            })
            .collect();
        let plain = Layout::new(&mesh, &map, None).unwrap();
        for rank in 0..original.ranks() {
            assert_eq!(plain.cell(rank), original.cell(rank), "{original:?} {rank}");
        }
    }
}

#[test]
fn reads_back_what_it_writes() {
    let cut = Arc::new(layout(&[2, 2], &[1, 0], None));
    let tensors = [
        Described {
            name: "a'w".into(),
            dtype: "Float32".into(),
            shape: vec![4, 6],
            layout: Some(Arc::clone(&cut)),
            first_rank: 0,
            stored: (0..4)
                .map(|rank| (rank, format!("f{rank}.safetensors")))
                .collect(),
        },
        Described {
            name: "lr".into(),
            dtype: "Float32".into(),
            shape: vec![],
            layout: None,
            first_rank: 0,
            stored: vec![(2, "f2.safetensors".into())],
        },
    ];
    let bytes = metadata(&tensors).unwrap();
    let read = parse(&bytes).unwrap().unwrap();
    assert_eq!((read.strategy.ranks(), read.files.len()), (4, 4));
    assert_eq!(read.strategy.layouts("a'w")[0].layout, cut);
    assert_eq!(
        read.strategy.layouts("lr")[0].layout.parts(),
        Vec::<u64>::new()
    );
    assert!(parse(br#"{"other": 1}"#).unwrap().is_none());
    let wrong = String::from_utf8(bytes).unwrap().replace("(3,)", "(1,)");
    assert!(parse(wrong.as_bytes()).is_err());
}

/// An embedding that a second stage has, too: the first stage's layout is told, and what it gives counts.
#[test]
fn what_lies_with_ranks_of_another_stage_does_not_count() {
    let cut = Arc::new(layout(&[2], &[0, -1], None));
    let of = |name: &str, first_rank: u32| Described {
        name: name.into(),
        dtype: "Float32".into(),
        shape: vec![4, 6],
        layout: Some(Arc::clone(&cut)),
        first_rank,
        stored: (first_rank..first_rank + 2)
            .map(|rank| (rank, format!("f{rank}")))
            .collect(),
    };
    let bytes = metadata(&[of("e", 0), of("e", 2), of("n", 2)]).unwrap();
    let read = parse(&bytes).unwrap().unwrap();
    assert_eq!((read.strategy.ranks(), read.files.len()), (4, 4));
    let stages = read.strategy.layouts("e").iter().map(|stage| stage.stage);
    assert_eq!(stages.collect::<Vec<_>>(), [0]);
    for (file, due) in [("f0", "e"), ("f1", "e"), ("f2", "n"), ("f3", "n")] {
        let names: Vec<&str> = read.counted[file].iter().map(|name| &**name).collect();
        assert_eq!(names, [due], "{file}");
    }
}

#[test]
fn tells_iterations_by_their_names() {
    assert_eq!(
        (iteration("iteration_00000012"), iteration("12\n")),
        (Some(12), Some(12))
    );
    assert_eq!((iteration("iteration_"), iteration("-1")), (None, None));
    assert_eq!(directory(12), "iteration_00000012");
}
