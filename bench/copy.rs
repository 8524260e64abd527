//! How fast are strided copies, against one copy of as many bytes?

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardloom::tensor::copy::run;
use shardloom::tensor::strided::{Loop, StridedCopy};

/// Bytes of a copy: a slab.
const BYTES: u64 = 1 << 20;

fn copies(c: &mut Criterion) {
    let source = vec![7u8; 4 << 20];
    let mut destination = vec![0u8; 1 << 20];
    let mut group = c.benchmark_group("copy 1 MiB");
    group.throughput(Throughput::Bytes(BYTES));
    group.bench_function("contiguous", |b| {
        b.iter(|| destination.copy_from_slice(&source[..1 << 20]));
    });
    for run_bytes in [2u64, 64, 1024, 16 << 10] {
        let rows = Loop {
            count: BYTES / run_bytes,
            source_stride: 4 * run_bytes,
            destination_stride: run_bytes,
        };
        let copy = StridedCopy::new(0, 0, run_bytes, vec![rows]);
        group.bench_function(format!("runs of {run_bytes} bytes"), |b| {
            b.iter(|| assert!(run(&copy, &source, &mut destination)));
        });
    }
    let transpose = StridedCopy::new(
        0,
        0,
        2,
        vec![
            Loop {
                count: 512,
                source_stride: 2048,
                destination_stride: 2,
            },
            Loop {
                count: 1024,
                source_stride: 2,
                destination_stride: 1024,
            },
        ],
    );
    group.bench_function("transpose of 2-byte elements", |b| {
        b.iter(|| assert!(run(&transpose, &source, &mut destination)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).without_plots();
    targets = copies
}
criterion_main!(benches);
