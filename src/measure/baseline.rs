//! What became slower since an earlier result.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Row};
use crate::measure::pairs::Pairs;
use crate::store::io::ReadFile;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Largest result that is read.
const BYTES_MAX: u64 = 256 << 20;
/// Differences below this are the clock's.
const SECONDS_LEAST: f64 = 1e-9;

/// Where a library's locks, of 0.1 us a message, are not seen any more.
const SECONDS_OF_LOCKS: f64 = 10e-6;

/// Rows that are named in a line.
const NAMED_MAX: usize = 8;

/// What tells a row from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Key {
    operation: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    by: String,
    bytes: u64,
    processes: u32,
}

/// An earlier result.
#[derive(Clone, Debug)]
pub struct Baseline {
    library: Option<String>,
    mpi_threads: Option<String>,
    medians: BTreeMap<Key, f64>,
    pairs: Option<Pairs>,
}

#[derive(Deserialize)]
struct Earlier {
    #[serde(default)]
    library: Option<String>,
    #[serde(default)]
    mpi_threads: Option<String>,
    rows: Vec<EarlierRow>,
    #[serde(default)]
    pairs: Option<Pairs>,
}

#[derive(Deserialize)]
struct EarlierRow {
    #[serde(flatten)]
    key: Key,
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
        let rows = earlier.rows.into_iter();
        Ok(Baseline {
            library: earlier.library,
            mpi_threads: earlier.mpi_threads,
            medians: rows.map(|row| (row.key, row.seconds.median)).collect(),
            pairs: earlier.pairs,
        })
    }

    /// Adds to the verdict what is slower by more than `tolerance` (0.1 is a tenth), rows and paths between
    /// nodes, and says that it is not well then, or if no row could be compared. The earlier result's rows that
    /// nothing was compared with are named, others counted.
    pub fn judge(&self, measured: &mut Measured, tolerance: f64) {
        if let Some(library) = &self.library
            && *library != measured.library
        {
            let line = format!("the earlier result is of another MPI library: {library}");
            measured.verdict.push(line);
        }
        if let Some(threads) = &self.mpi_threads
            && self.is_otherwise_for_threads(measured)
        {
            let line = format!(
                "the earlier result is of MPI started otherwise for threads ({threads}): what takes less than \
                 {:.0} us isn't compared",
                SECONDS_OF_LOCKS * 1e6
            );
            measured.verdict.push(line);
        }
        let known = self.judge_rows(measured, tolerance);
        self.judge_pairs(measured, tolerance);
        let lacking = self.medians.keys().filter(|key| !known.contains(key));
        measured.not_compared = lacking.map(Key::label).collect();
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

    /// Whether MPI was started for another number of threads, which costs every message its locks, or spares them.
    fn is_otherwise_for_threads(&self, measured: &Measured) -> bool {
        let threads = self.mpi_threads.as_deref();
        threads.is_some_and(|threads| threads != measured.mpi_threads)
    }

    /// The rows that could be compared.
    fn judge_rows(&self, measured: &mut Measured, tolerance: f64) -> BTreeSet<Key> {
        let mut known = BTreeSet::new();
        let least = match self.is_otherwise_for_threads(measured) {
            true => SECONDS_OF_LOCKS,
            false => 0.0,
        };
        for row in &measured.rows {
            let key = Key::of(row);
            let Some(&before) = self.medians.get(&key) else {
                continue;
            };
            if before < least {
                continue;
            }
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
        known
    }

    /// Paths that both results have, by the nodes' names; the slowest first. Where processes share cores, no path can
    /// be blamed.
    fn judge_pairs(&self, measured: &mut Measured, tolerance: f64) {
        let (Some(before), Some(now)) = (&self.pairs, &measured.pairs) else {
            return;
        };
        if before.bytes != now.bytes || before.shares_cores || now.shares_cores {
            return;
        }
        let mut slower = Vec::new();
        let mut paths = 0_u64;
        for (from, to, rate) in now.paths() {
            let Some(earlier) = before.rate(from, to) else {
                continue;
            };
            paths += 1;
            if rate * (1.0 + tolerance) < earlier {
                slower.push((rate / earlier, format!("{from} to {to}"), rate, earlier));
            }
        }
        if slower.is_empty() {
            return;
        }
        slower.sort_by(|one, other| one.0.total_cmp(&other.0));
        let told = slower.iter().map(|(_, path, rate, earlier)| {
            format!("{path} ({rate:.3} GB/s, {earlier:.3} before)")
        });
        measured.verdict.push(format!(
            "slower: {} of {}: {}",
            slower.len(),
            counted(paths, "path"),
            first(&told.collect::<Vec<_>>(), NAMED_MAX)
        ));
        measured.ok = false;
        measured
            .slower
            .extend(slower.into_iter().map(|(_, path, ..)| path));
    }
}

impl Key {
    fn of(row: &Row) -> Key {
        Key {
            operation: row.operation.clone(),
            variant: row.variant.clone(),
            node: row.node.clone(),
            by: row.by.to_owned(),
            bytes: row.bytes,
            processes: row.processes,
        }
    }

    /// The row in words.
    fn label(&self) -> String {
        let row = Row {
            operation: self.operation.clone(),
            variant: self.variant.clone(),
            node: self.node.clone(),
            by: match self.by.as_str() {
                "library" => "library",
                _ => "shardloom",
            },
            bytes: self.bytes,
            processes: self.processes,
            ..Row::default()
        };
        row.label()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sampling::Seconds;

    fn row(operation: &str, by: &'static str, median: f64) -> Row {
        Row {
            operation: operation.into(),
            by,
            seconds: Seconds {
                median,
                ..Seconds::default()
            },
            ..Row::default()
        }
    }

    #[test]
    fn names_what_is_slower() {
        let text = br#"{"ok": true, "rows": [
            {"operation": "barrier", "by": "library", "bytes": 0, "processes": 4, "seconds": {"median": 1.0}},
            {"operation": "broadcast", "by": "library", "bytes": 8, "processes": 4, "seconds": {"median": 1.0}}]}"#;
        let baseline = Baseline::parse(text).unwrap();
        let row = |operation: &str, bytes, median| Row {
            bytes,
            processes: 4,
            ..row(operation, "library", median)
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

    #[test]
    fn what_locks_make_slower_is_not_compared_with_what_has_none() {
        let text = |threads: &str| {
            let row = |name, median| {
                format!(
                    r#"{{"operation": "{name}", "by": "library", "bytes": 8, "processes": 2, "seconds": {{"median": {median}}}}}"#
                )
            };
            let rows = [row("latency", 1e-7), row("broadcast", 1e-4)].join(",");
            format!(r#"{{"mpi_threads": "{threads}", "rows": [{rows}]}}"#)
        };
        for (threads, slower) in [("funneled", 2), ("single", 1)] {
            let processes = |row: Row| Row {
                bytes: 8,
                processes: 2,
                ..row
            };
            let rows = [("latency", 2e-7), ("broadcast", 2e-4)];
            let mut measured = Measured {
                mpi_threads: "funneled",
                rows: rows
                    .map(|(name, median)| processes(row(name, "library", median)))
                    .to_vec(),
                ..Measured::default()
            };
            let baseline = Baseline::parse(text(threads).as_bytes()).unwrap();
            baseline.judge(&mut measured, 0.1);
            assert_eq!(measured.slower.len(), slower, "{measured:?}");
            assert_eq!(measured.not_compared.len(), 2 - slower, "{measured:?}");
        }
    }

    #[test]
    fn nodes_that_were_measured_alone_are_told_apart() {
        let text = br#"{"rows": [
            {"operation": "write", "node": "a", "by": "shardloom", "bytes": 8, "processes": 2, "seconds": {"median": 1.0}},
            {"operation": "write", "node": "b", "by": "shardloom", "bytes": 8, "processes": 2, "seconds": {"median": 9.0}}]}"#;
        let baseline = Baseline::parse(text).unwrap();
        let row = |node: &str, median| Row {
            node: Some(node.into()),
            bytes: 8,
            processes: 2,
            ..row("write", "shardloom", median)
        };
        let mut measured = Measured {
            ok: true,
            rows: vec![row("a", 5.0), row("b", 9.0)],
            ..Measured::default()
        };
        baseline.judge(&mut measured, 0.1);
        assert_eq!(measured.compared, Some(2));
        let slower = "write (a alone) of 8 bytes, 2 processes";
        assert!(!measured.ok && measured.slower == [slower], "{measured:?}");
    }

    #[test]
    fn a_path_that_became_slow_is_named_whatever_the_order_of_nodes() {
        let pairs = |names: [&str; 2], rates: [f64; 2], shares_cores| Pairs {
            names: names.map(str::to_owned).to_vec(),
            bytes: 1 << 20,
            gbps: vec![vec![None, Some(rates[0])], vec![Some(rates[1]), None]],
            shares_cores,
            ..Pairs::default()
        };
        let baseline = |shares_cores| Baseline {
            library: Some("MPI 1".into()),
            mpi_threads: Some("single".into()),
            medians: BTreeMap::new(),
            pairs: Some(pairs(["a", "b"], [10.0, 20.0], shares_cores)),
        };
        let judged = |now: Pairs, before: Baseline| {
            let mut measured = Measured {
                ok: true,
                pairs: Some(now),
                ..Measured::default()
            };
            before.judge(&mut measured, 0.1);
            measured
        };
        // b to a was at 20.
        let measured = judged(pairs(["b", "a"], [5.0, 9.5], false), baseline(false));
        assert_eq!(measured.slower, ["b to a"], "{measured:?}");
        let told = measured.verdict.join("\n");
        assert!(
            told.contains("1 of 2 paths: b to a (5.000 GB/s, 20.000 before)"),
            "{told}"
        );
        assert!(told.contains("another MPI library: MPI 1"), "{told}");
        assert!(told.contains("otherwise for threads (single)"), "{told}");
        for (now, before) in [(true, false), (false, true)] {
            let measured = judged(pairs(["b", "a"], [5.0, 9.5], now), baseline(before));
            assert!(measured.slower.is_empty(), "{measured:?}");
        }
    }
}
