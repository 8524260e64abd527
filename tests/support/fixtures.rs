//! The recorded cases of `tests/data`.

use super::tensors::{self, Tensors};
use super::{ckpt, oracle::Strategy};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One recorded call.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Step {
    /// The case's directory name.
    #[serde(skip)]
    pub(crate) case: String,
    pub(crate) op: String,
    pub(crate) input: Option<String>,
    pub(crate) src_strategy: Option<String>,
    pub(crate) dst_strategy: Option<String>,
    pub(crate) expected: Option<String>,
    pub(crate) args: serde_json::Map<String, Value>,
    #[serde(default)]
    pub(crate) mindspore_output_is_wrong: Option<String>,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (src, dst) = (shown(&self.src_strategy), shown(&self.dst_strategy));
        let (input, expected) = (shown(&self.input), shown(&self.expected));
        write!(
            f,
            "{}: {} {input} [{src} -> {dst}] = {expected}",
            self.case, self.op
        )?;
        if !self.args.is_empty() {
            write!(f, " {}", Value::Object(self.args.clone()))?;
        }
        Ok(())
    }
}

impl Step {
    /// The path of something the step names, inside its case.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        data().join(&self.case).join(name)
    }

    pub(crate) fn strategy(&self, name: Option<&String>) -> Result<Strategy, String> {
        let name = name.ok_or("the step names no such strategy")?;
        Strategy::read(&self.path(name))
    }

    /// A textual argument of the recorded call.
    pub(crate) fn arg(&self, name: &str) -> Option<&str> {
        self.args.get(name).and_then(Value::as_str)
    }
}

/// Where the recorded cases are.
pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Every recorded step of every case.
pub(crate) fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    let directories = std::fs::read_dir(data()).expect("tests/data");
    let mut cases: Vec<PathBuf> = directories
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    for case in cases {
        let Ok(text) = std::fs::read_to_string(case.join("manifest.json")) else {
            continue;
        };
        let mut manifest: Value = serde_json::from_str(&text).expect("a manifest");
        let recorded: Vec<Step> =
            serde_json::from_value(manifest["steps"].take()).expect("its steps");
        let name = case.file_name().expect("a name").to_string_lossy();
        steps.extend(recorded.into_iter().map(|step| Step {
            case: name.clone().into_owned(),
            ..step
        }));
    }
    steps
}

/// All files below `directory`, relative to it, in order; a single file is called `""`.
pub(crate) fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else {
            let file = path.strip_prefix(directory).expect("below the directory");
            files.push(file.to_owned());
        }
    }
    files.sort();
    files
}

/// The tensors of a safetensors or `.ckpt` file.
pub(crate) fn tensors_of(path: &Path) -> Result<Tensors, String> {
    if path.extension().is_some_and(|e| e == "ckpt") {
        ckpt::tensors(&ckpt::read(path)?)
    } else {
        Ok(tensors::read(path)?.tensors)
    }
}

/// The one file of each `rank_*` directory below `directory`; a file, or a directory without ranks, is rank 0.
pub(crate) fn ranks(directory: &Path) -> Result<BTreeMap<usize, Tensors>, String> {
    let mut ranks = BTreeMap::new();
    for file in listing(directory) {
        if file.extension().is_some_and(|e| e == "json") {
            continue;
        }
        let first = file.iter().next().and_then(|name| name.to_str());
        let rank = first.and_then(|name| name.strip_prefix("rank_")?.parse().ok());
        let path = if file.as_os_str().is_empty() {
            directory.to_owned()
        } else {
            directory.join(&file)
        };
        let tensors = tensors_of(&path)?;
        if let Some(rank) = rank {
            if ranks.insert(rank, tensors).is_some() {
                return Err(format!("{}: several files of a rank", path.display()));
            }
        } else {
            ranks.entry(0).or_insert_with(Tensors::new).extend(tensors);
        }
    }
    Ok(ranks)
}
