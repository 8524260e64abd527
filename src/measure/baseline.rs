//! What became slower since an earlier result.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Row};
use crate::store::io::ReadFile;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Largest result that is read.
const BYTES_MAX: u64 = 256 << 20;
/// Differences below this are the clock's.
const SECONDS_LEAST: f64 = 1e-9;

/// Rows that are named in a line.
const NAMED_MAX: usize = 8;

/// What tells a row from others.
type Key = (String, String, String, u64, u32);

/// An earlier result's rows.
#[derive(Clone, Debug)]
pub struct Baseline {
    medians: BTreeMap<Key, f64>,
}

#[derive(Deserialize)]
struct Earlier {
    rows: Vec<EarlierRow>,
}

#[derive(Deserialize)]
struct EarlierRow {
    operation: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    by: String,
    bytes: u64,
    processes: u32,
    seconds: EarlierSeconds,
}

#[derive(Deserialize)]
struct EarlierSeconds {
    median: f64,
}

impl Baseline {
    /// Reads what `bench --json` has printed. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what is none, [`Kind::Io`].
    pub fn read(path: &Path) -> Result<Baseline> {
        let text = ReadFile::open(path)?.read_all(BYTES_MAX)?;
        Baseline::parse(&text).map_err(|fault| fault.file(path.display().to_string()))
    }

    fn parse(text: &[u8]) -> Result<Baseline> {
        let earlier: Earlier = serde_json::from_slice(text).map_err(|error| {
            let message = format!("is no result of a bench: {error}");
            Fault::new(Kind::Corrupt, message).hint("save one by: shardloom bench … --json > FILE")
        })?;
        let rows = earlier.rows.into_iter().map(|row| {
            let variant = row.variant.unwrap_or_default();
            let key = (row.operation, variant, row.by, row.bytes, row.processes);
            (key, row.seconds.median)
        });
        Ok(Baseline {
            medians: rows.collect(),
        })
    }

    /// Adds to the verdict what is slower by more than `tolerance` (0.1 is a tenth), and says that it is
    /// not well then, or if no row could be compared. The earlier result's rows that nothing was compared with
    /// are named, others counted.
    pub fn judge(&self, measured: &mut Measured, tolerance: f64) {
        let mut known = BTreeSet::new();
        for row in &measured.rows {
            let Some((key, before)) = self.medians.get_key_value(&key(row)) else {
                continue;
            };
            known.insert(key);
            let now = row.seconds.median;
            if now > before * (1.0 + tolerance) + SECONDS_LEAST {
                measured.ok = false;
                measured.verdict.push(format!(
                    "slower: {}: {:.3} us, {:.3} before ({:+.0} %)",
                    row.label(),
                    now * 1e6,
                    before * 1e6,
                    100.0 * (now / before.max(f64::MIN_POSITIVE) - 1.0)
                ));
                measured.slower.push(row.label());
            }
        }
        let lacking = self.medians.keys().filter(|key| !known.contains(key));
        measured.not_compared = lacking.map(label).collect();
        measured.compared = Some(known.len() as u64);
        let new = measured.rows.len().saturating_sub(known.len()) as u64;
        if new > 0 {
            let new = counted(new, "row");
            let line = format!("not compared: {new} that the earlier result lacks");
            measured.verdict.push(line);
        }
        if !measured.not_compared.is_empty() {
            let left = measured.not_compared.len();
            let names = first(&measured.not_compared, NAMED_MAX);
            measured.verdict.push(format!(
                "not compared: {left} of the {} of the earlier result: {names}",
                counted(self.medians.len() as u64, "row")
            ));
        }
        if known.is_empty() {
            measured.ok = false;
            let line = "nothing was compared with the earlier result: measure the same operations and \
                        sizes, by as many processes, as it has";
            measured.verdict.push(line.to_owned());
        }
    }
}

/// A row of the earlier result, in words.
fn label((operation, variant, by, bytes, processes): &Key) -> String {
    let row = Row {
        operation: operation.clone(),
        variant: Some(variant.clone()).filter(|variant| !variant.is_empty()),
        by: match by.as_str() {
            "library" => "library",
            _ => "shardloom",
        },
        bytes: *bytes,
        processes: *processes,
        ..Row::default()
    };
    row.label()
}

fn key(row: &Row) -> Key {
    let variant = row.variant.clone().unwrap_or_default();
    let operation = row.operation.clone();
    (
        operation,
        variant,
        row.by.to_owned(),
        row.bytes,
        row.processes,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sampling::Seconds;

    #[test]
    fn names_what_is_slower() {
        let text = br#"{"ok": true, "rows": [
            {"operation": "barrier", "by": "library", "bytes": 0, "processes": 4, "seconds": {"median": 1.0}},
            {"operation": "broadcast", "by": "library", "bytes": 8, "processes": 4, "seconds": {"median": 1.0}}]}"#;
        let baseline = Baseline::parse(text).unwrap();
        let row = |operation: &str, bytes, median| Row {
            operation: operation.into(),
            by: "library",
            bytes,
            processes: 4,
            seconds: Seconds {
                median,
                ..Seconds::default()
            },
            ..Row::default()
        };
        let mut measured = Measured {
            ok: true,
            rows: vec![
                row("barrier", 0, 1.05),
                row("broadcast", 8, 0.5),
                row("gather", 8, 9.0),
            ],
            ..Measured::default()
        };
        baseline.judge(&mut measured, 0.1);
        assert!(measured.ok && measured.slower.is_empty(), "{measured:?}");
        assert_eq!(
            (measured.compared, measured.not_compared.len()),
            (Some(2), 0)
        );
        assert!(
            measured
                .verdict
                .iter()
                .any(|line| line.contains("1 row that the earlier"))
        );
        baseline.judge(&mut measured, 0.01);
        assert!(
            !measured.ok && measured.slower == ["barrier by the MPI library, 4 processes"],
            "{measured:?}"
        );
        assert!(Baseline::parse(b"{}").is_err());
        // What is left out is named; where nothing is left it isn't well.
        for (rows, ok) in [
            (vec![row("barrier", 0, 1.0)], true),
            (vec![row("gather", 8, 1.0)], false),
        ] {
            let mut measured = Measured {
                ok: true,
                rows,
                ..Measured::default()
            };
            baseline.judge(&mut measured, 0.1);
            assert_eq!(measured.ok, ok, "{measured:?}");
            let left = "broadcast of 8 bytes by the MPI library, 4 processes";
            assert!(
                measured.not_compared.iter().any(|name| name == left),
                "{measured:?}"
            );
            assert!(
                measured.verdict.iter().any(|line| line.contains(left)),
                "{measured:?}"
            );
        }
    }
}
