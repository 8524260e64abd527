//! How long does it take to say which cell a rank holds, and who else holds it?

use criterion::{Criterion, criterion_group, criterion_main};
use shardloom::layout::{Layout, OptimizerShard};
use std::hint::black_box;

fn layout(c: &mut Criterion) {
    let shard = OptimizerShard { step: 8, size: 8 };
    let map = [vec![0], vec![-1]];
    let Ok(layout) = Layout::new(&[128, 8], &map, Some(shard)) else {
        return;
    };
    c.bench_function("cell of a rank, 1024 ranks", |b| {
        b.iter(|| layout.cell(black_box(700)));
    });
    let cell = layout.cell(700);
    c.bench_function("16 holders of a cell, 1024 ranks", |b| {
        b.iter(|| layout.holders(black_box(&cell)).map(u64::from).sum::<u64>());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).without_plots();
    targets = layout
}
criterion_main!(benches);
