//! What is read of sources, against what is needed of them.

use crate::support::command::{alone, object, under_mpi};
use crate::support::oracle::Strategy;
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{Tensor, Tensors};

/// A row has runs of a few bytes for each of many columns: it is read for all of them together, not for each of them,
/// whatever the shards are and whoever sends them.
#[test]
fn rows_are_read_once_for_the_columns_of_many_ranks() {
    const ROWS: usize = 512;
    const COLUMNS: usize = 4096;
    const RANKS: usize = 256;
    let whole = Tensors::from([(
        "w".to_owned(),
        Tensor::counting("BF16", &[ROWS, COLUMNS], 1),
    )]);
    let strategy = |parts: usize, map: &[i64]| Strategy::of(&[("w", layout(&[parts], map))]);
    let rows = strategy(4, &[0, -1]);
    let columns = strategy(RANKS, &[-1, 0]);
    let sample = Sample::of(whole, rows, columns);
    let reshard = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --json";
    let split = "split --src @full --dst-strategy @two.ckpt --json --dst @split";
    let few = |told: &serde_json::Value| {
        let bytes = |name: &str| told["bytes"][name].as_u64().expect("a number");
        let (read, needed) = (bytes("read"), bytes("read_unique"));
        assert!(needed >= (ROWS * COLUMNS * 2) as u64, "{told}");
        assert!(read <= 3 * needed, "{read} of {needed}");
    };
    few(&object(&alone(&sample.args(split)).succeeds()));
    sample.check("split", &sample.two, &sample.whole);
    for (processes, exchange) in [(1, "auto"), (4, "auto"), (4, "collective")] {
        let out = format!("{exchange}{processes}");
        let line = format!("{reshard} --exchange {exchange} --dst @{out}");
        few(&object(
            &under_mpi(processes, &sample.args(&line)).succeeds(),
        ));
        sample.check(&out, &sample.two, &sample.whole);
    }
}
