//! Damaged files and texts, made of good ones: no parser panics, takes long, or takes what the
//! reference refuses.
//!
//! `SHARDLOOM_FUZZ_SECONDS` sets how long each parser is tried. `tests/corpus` has what `tests/fuzz/` has found by following
//! where inputs lead in the program.

use crate::support::parsers::{PARSERS, read_safetensors};
use crate::support::{example, run_within};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Strategy as Draw;
use proptest::test_runner::{Config, TestRunner};
use shardloom::fault::{Fault, Kind};
use shardloom::store::{ckpt, full_dir, safetensors as ours};
use shardloom::strategy::{Strategy, StrategyFile};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Largest good file to begin with.
const SEED_BYTES_MAX: u64 = 20_000;
/// Longest that one input may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn time() -> Duration {
    let seconds = std::env::var("SHARDLOOM_FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(0.5, |text| text.parse().expect("SHARDLOOM_FUZZ_SECONDS"));
    Duration::from_secs_f64(seconds)
}

/// Small files of `tests/data` whose paths fit, at most 40.
fn recorded(fits: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(path) = open.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.metadata().is_ok_and(|m| m.len() <= SEED_BYTES_MAX)
            && fits(&path.to_string_lossy())
        {
            paths.push(path);
        }
    }
    paths.sort();
    let stride = paths.len().div_ceil(40).max(1);
    let read = |path: &PathBuf| std::fs::read(path).expect("a file");
    paths.iter().step_by(stride).map(read).collect()
}

/// One way to damage bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

/// Bytes that mean something to some parser.
const WORDS: [&[u8]; 14] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x00",
    b"18446744073709551615",
    b"9223372036854775808",
    b"-1",
    b"1e999",
    b"{\"a\":",
    b"[[[[[[[[",
    b"\"",
    b"\"__metadata__\":{},",
    b"\\ud800",
    b"../",
    b",",
];

fn damage() -> impl Draw<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let word = prop::sample::select(WORDS.to_vec()).prop_map(<[u8]>::to_vec);
    prop_oneof![
        3 => (at(), 1u8..=255).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (at(), word).prop_map(|(at, word)| Damage::Insert(at, word)),
        1 => (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), 1usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at(), 1usize..200).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => at().prop_map(Damage::Cut),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |at: &prop::sample::Index| at.index(length + 1);
        match self {
            Damage::Flip(at, bits) if !bytes.is_empty() => {
                let at = at.index(length);
                bytes[at] ^= bits;
            }
            Damage::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(length);
                bytes[at] = *byte;
            }
            Damage::Flip(..) | Damage::Set(..) => {}
            Damage::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(length));
            }
            Damage::Repeat(at, count) => {
                let at = place(at);
                let more = bytes[at..(at + count).min(length)].to_vec();
                bytes.splice(at..at, more);
            }
            Damage::Cut(at) => bytes.truncate(place(at)),
        }
    }
}

/// Tries `parse` on damaged `seeds`; it tells whether it took the input.
fn fuzz(
    what: &str,
    seeds: Vec<Vec<u8>>,
    parse: impl Fn(&[u8]) -> std::result::Result<bool, String>,
) {
    assert!(!seeds.is_empty(), "{what}: nothing to begin with");
    let (tried, taken) = (Cell::new(0u64), Cell::new(0u64));
    for seed in &seeds {
        parse(seed).expect("a good input");
    }
    let inputs = (prop::sample::select(seeds), vec(damage(), 0..6));
    let begun = Instant::now();
    while begun.elapsed() < time() {
        let mut runner = TestRunner::new(Config {
            cases: 200,
            failure_persistence: None,
            ..Config::default()
        });
        let result = runner.run(&inputs, |(mut bytes, damages)| {
            damages.iter().for_each(|damage| damage.apply(&mut bytes));
            let start = Instant::now();
            let took = parse(&bytes).map_err(TestCaseError::fail)?;
            prop_assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
            tried.set(tried.get() + 1);
            taken.set(taken.get() + u64::from(took));
            Ok(())
        });
        assert!(result.is_ok(), "{what}: {}", result.expect_err("it is one"));
    }
    let (tried, taken) = (tried.get(), taken.get());
    println!(
        "{what}: {tried} inputs, {taken} taken, {:?}",
        begun.elapsed()
    );
}

/// Good inputs to begin with, beside those that are kept.
fn seeds(parser: &str) -> Vec<Vec<u8>> {
    let ends = |end: &'static str| recorded(move |path| path.ends_with(end));
    let named = |end: &'static str, part: &'static str| {
        recorded(move |path| path.ends_with(end) && path.contains(part))
    };
    let given = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match parser {
        "safetensors" => {
            let mut seeds = ends(".safetensors");
            // Little data, so that damage meets the header.
            let header = br#"{"__metadata__":{"format":"ms"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[],"data_offsets":[8,9]},"e":{"dtype":"F16","shape":[0,3],"data_offsets":[9,9]}}"#;
            let mut small = (header.len() as u64).to_le_bytes().to_vec();
            small.extend_from_slice(header);
            small.extend_from_slice(&[7; 9]);
            (0..seeds.len()).for_each(|_| seeds.push(small.clone()));
            seeds
        }
        "ckpt" => {
            let mut seeds = recorded(|path| path.ends_with(".ckpt") && !path.contains("strategy"));
            seeds.extend(ends(".ckpt"));
            seeds
        }
        "strategy_messages" => named(".ckpt", "strategy"),
        "strategy_json" => {
            let mut seeds = named(".json", "strategy");
            seeds.extend::<Vec<Vec<u8>>>(given(&["{}", STRATEGY]));
            seeds
        }
        "index_map" => {
            let mut seeds =
                recorded(|path| path.ends_with("map.json") || path.ends_with("index.json"));
            seeds.extend::<Vec<Vec<u8>>>(given(&[INDEX]));
            seeds
        }
        "texts" => given(&[
            "5GB",
            "340282366920938463463.5TiB",
            "1.5 MiB",
            "dp=2,tp=4,pp=2,offset=1:0/0:0",
            "*.weight=tp+dp,-",
            "rank_12",
            "1-a.b",
        ]),
        "train_yaml" | "job_yaml" => ends(".yaml"),
        "model_config" => ends("config.json"),
        _ => Vec::new(),
    }
}

const STRATEGY: &str = r#"{"parallel_strategy_item":{"MatMul-op0":{"stage":0,"parallel_strategy":[]}},"parallel_layout_item":{"w":{"dev_matrix":[2,2],"tensor_map":[1,0],"tensor_shape":[4,4],"field_size":0,"opt_weight_shard_step":0,"opt_weight_shard_size":0}}}"#;
const INDEX: &str = r#"{"metadata":{"total_size":8},"weight_map":{"a":"x/part0.safetensors"}}"#;

/// The inputs that are kept: each once led to a place of the program to which no other did. A file has all of a parser,
/// each after its length in 4 bytes.
fn kept(parser: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let packed = std::fs::read(corpus.join(parser)).expect("the parser's inputs");
    let (mut rest, mut all) = (&packed[..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (input, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        all.push(input.to_vec());
        rest = after;
    }
    all
}

fn tried(name: &str) {
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    let parser = parser.expect("a parser");
    let kept = kept(name);
    assert!(!kept.is_empty(), "tests/corpus/{name} has nothing");
    let mut all = seeds(name);
    all.extend(kept);
    fuzz(name, all, parser.parse);
}

macro_rules! others {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { tried(stringify!($name)); })*

        #[test]
        fn every_parser_is_tried() {
            let mut tried = vec!["safetensors", "index_map", $(stringify!($name)),*];
            let mut all: Vec<&str> = PARSERS.iter().map(|parser| parser.name).collect();
            (tried.sort_unstable(), all.sort_unstable());
            assert_eq!(all, tried);
        }
    };
}

// proves P107
#[test]
fn safetensors_headers() {
    tried("safetensors");
}

// proves P136
#[test]
fn index_maps() {
    tried("index_map");
}

others!(
    ckpt,
    strategy_messages,
    strategy_json,
    manifest,
    journal,
    meta,
    file_name,
    checkpoint2,
    train_yaml,
    job_yaml,
    monitor_yaml,
    machine,
    baseline,
    shapes,
    family,
    model_config,
    adapter,
    texts,
    any_file,
    torch_file,
    distributed_torch,
);

/// Largest resident memory so far, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits: String = line
        .unwrap_or("0")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse::<u64>().expect("a number") * 1024
}

// proves P71
#[test]
fn bombs_are_refused_with_little_memory() {
    let tensor = |shape: &str, end: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    let deep = |open: &str| open.repeat(1_000_000);
    let texts = [
        tensor("[4294967295,4294967295,4294967295]", "4"),
        tensor("[18446744073709551615]", "18446744073709551615"),
        tensor(&format!("[{}1]", "1,".repeat(400_000)), "8"),
        format!("{{\"a\":{}", deep("[")),
        format!("{{\"__metadata__\":{}", deep("{\"a\":")),
        format!("{{\"parallel_layout_item\":{}", deep("{\"a\":")),
        format!("{{\"weight_map\":{}", deep("[")),
    ];
    let before = peak_bytes();
    for text in &texts {
        let head = &text[..60];
        let bytes = text.as_bytes();
        let start = Instant::now();
        let size = 8 + bytes.len() as u64 + 4;
        assert!(ours::parse(bytes, size).is_err(), "{head}");
        assert!(full_dir::parse_map(bytes).is_err(), "{head}");
        for name in ["s.json", "s.ckpt"] {
            assert!(
                Strategy::read(&[StrategyFile { name, bytes }]).is_err(),
                "{head}"
            );
        }
        assert!(start.elapsed() < PATIENCE, "{head}: {:?}", start.elapsed());
    }
    // Lengths that nothing stands behind.
    for length in [u64::MAX, 1 << 62, 100_000_001, 99_999_999] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(read_safetensors(&bytes).is_err());
        let mut message = vec![0x0a];
        message.extend_from_slice(WORDS[0]);
        let beyond = |_: &mut [u8], _: u64| Err(Fault::new(Kind::Io, "beyond the end"));
        assert!(ckpt::parse(length, &beyond).is_err());
        let files = [StrategyFile {
            name: "s.ckpt",
            bytes: &message,
        }];
        assert!(Strategy::read(&files).is_err());
    }
    let grown = peak_bytes() - before;
    assert!(grown < 256 << 20, "{grown} bytes more");
}

/// Whole jobs on small trees: what they make is what the source has, what they refuse leaves nothing.
#[test]
fn whole_jobs_are_right_or_refuse() {
    let room = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut command = Command::new(example("jobs_check"));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/jobs");
    command.arg(corpus).arg(room.path());
    run_within(command, Duration::from_secs(60)).succeeds();
}
