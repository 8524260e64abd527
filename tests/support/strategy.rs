//! Reading the strategy files of `tests/data`.

use serde_json::Value;
use shardloom::fault::Result;
use shardloom::strategy::{Strategy, StrategyFile};
use std::path::{Path, PathBuf};

pub(crate) fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

pub(crate) fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(data(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads one file, or all files of a directory.
pub(crate) fn with_files<T>(path: &str, f: impl FnOnce(&[StrategyFile]) -> T) -> T {
    let mut paths = vec![path.to_string()];
    if data(path).is_dir() {
        let names = std::fs::read_dir(data(path)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        paths = names.map(|name| format!("{path}/{name}")).collect();
    }
    let read: Vec<_> = paths.iter().map(|path| (path, bytes(path))).collect();
    let files = read
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes });
    f(&files.collect::<Vec<_>>())
}

pub(crate) fn read(path: &str) -> Result<Strategy> {
    with_files(path, Strategy::read)
}

pub(crate) fn json_file(path: &str) -> Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}
