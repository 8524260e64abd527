//! How long does one process's plan take, and does it grow with the world?

#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code)] // the tests use more of it
#[path = "../tests/support/deepseek.rs"]
mod deepseek;

use criterion::{Criterion, criterion_group, criterion_main};
use deepseek::{Parallel, shapes, strategy};
use shardloom::measure::simulate::{Question, plan};

fn plans(c: &mut Criterion) {
    let shapes = shapes();
    for scale in [1, 8] {
        let source = strategy(Parallel {
            pp: 16,
            dp: 16 * scale,
            tp: 8,
            ep: 64,
        });
        let destination = strategy(Parallel {
            pp: 8,
            dp: 32 * scale,
            tp: 4,
            ep: 32,
        });
        let ranks = (source.ranks(), destination.ranks());
        let mut question = Question::new("-");
        question.process = Some(ranks.1 / 3 * 2);
        let name = format!(
            "one process's plan, DeepSeek-V3, {} to {} ranks",
            ranks.0, ranks.1
        );
        c.bench_function(&name, |b| {
            b.iter(|| plan(&question, &shapes, Some(&source), Some(destination.clone())).unwrap());
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).without_plots();
    targets = plans
}
criterion_main!(benches);
