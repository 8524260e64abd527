//! The small files that go along with a model's weights.

use crate::catalog::SmallFile;
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::model::described::{CONFIG, SMALL_BYTES_MAX};
use crate::model::quantise::note;
use crate::model::tied::TIED;
use crate::plan::inventory::Inventory;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::json;
use crate::tensor::dtype::Dtype;
use crate::view::Table;
use serde_json::{Map, Value};
use std::path::Path;

/// Largest of them.
const BYTES_MAX: u64 = 2 << 30;
/// Their endings.
const SMALL: [&str; 9] = [
    "json", "model", "txt", "jinja", "tiktoken", "py", "bpe", "codes", "spm",
];
/// Directories that go along, with all that is in them.
const ROOMS: [&str; 2] = ["additional_chat_templates", "chat_templates"];
/// Beginnings of files that a training or a quantisation leaves: a loader would take them for a part
/// of the model, or nobody needs them.
const LEFT: [&str; 13] = [
    "adapter_",
    "all_results",
    "eval_results",
    "optimizer",
    "quant",
    "hf_quant_config",
    "gptq",
    "awq",
    "random_states",
    "scheduler",
    "train",
    "log",
    "requirements",
];

/// What DeepSpeed leaves beside its checkpoints.
const CONVERTER: &str = "zero_to_fp32.py";

/// What is in the names of texts that a loader of the model reads: of its configuration, tokenizer, processors and labels.
const READ: [&str; 18] = [
    "bpe",
    "config_sentence",
    "configuration",
    "encoder",
    "generation_config",
    "label",
    "license",
    "merges",
    "modules",
    "normalizer",
    "processor",
    "sentence",
    "special_token",
    "tekken",
    "template",
    "token",
    "unigram",
    "vocab",
];

/// Beginnings of files that are copied however long they are.
const ANY_SIZE: [&str; 4] = ["tokenizer", "vocab", "merges", "chat_template"];

/// The small files of a model.
#[derive(Clone, Debug, Default)]
pub struct Companions {
    /// Those that go along.
    pub files: Vec<SmallFile>,
    /// Names of those that don't.
    left: Vec<String>,
}

impl Companions {
    /// The config.json among them.
    pub(super) fn config(&self) -> Option<&[u8]> {
        let found = self.files.iter().find(|file| file.path == CONFIG);
        found.map(|file| file.bytes.as_slice())
    }

    /// What is to be said of what doesn't go along.
    pub(super) fn note(&self) -> Option<String> {
        const TOLD: usize = 3;
        let verb = match self.left.len() {
            0 => return None,
            1 => "is",
            _ => "are",
        };
        let told = first(&self.left, TOLD);
        Some(format!(
            "{told} {verb} not copied: no part of a model's own files"
        ))
    }
}

/// config.json, tokenizer and the like of the model in `directory`; what a training leaves beside them
/// doesn't go along. Local.
///
/// # Errors
/// [`Kind::Corrupt`] for a pointer of Git LFS in place of a file, [`Kind::MissingShard`] for a link that
/// leads nowhere, [`Kind::Io`].
pub fn companions(directory: &Path) -> Result<Companions> {
    let mut found = Companions::default();
    for (name, is_directory) in io::list(directory)? {
        if !is_directory && goes_along(&name) {
            let any_size = ANY_SIZE.iter().any(|begin| name.starts_with(begin));
            let size = io::size(&directory.join(&name))?.unwrap_or_default();
            if any_size || size <= SMALL_BYTES_MAX {
                found.files.push(read(directory, name)?);
            } else {
                found.left.push(name);
            }
        } else if !is_directory && is_small(&name) && !is_map(&name) {
            found.left.push(name);
        } else if is_directory && is_room(&name) {
            for (inner, is_directory) in io::list(&directory.join(&name))? {
                if !is_directory && !inner.starts_with('.') {
                    found
                        .files
                        .push(read(directory, format!("{name}/{inner}"))?);
                }
            }
        }
    }
    Ok(found)
}

/// Whether a name has the ending of a small file.
fn is_small(name: &str) -> bool {
    let mut parts = name.split('.').rev();
    let last = parts.next().unwrap_or_default();
    let is_version = last
        .strip_prefix('v')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    // tokenizer.model.v3 is one, too.
    let ending = if is_version { parts.next() } else { Some(last) };
    !name.starts_with('.') && ending.is_some_and(|ending| SMALL.contains(&ending))
}

/// Whether a loader of the model reads it: any of the other endings, and of texts what its name says.
fn is_read(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let text = lower.ends_with(".json") || lower.ends_with(".txt");
    !text || name == CONFIG || name == "dict.txt" || READ.iter().any(|part| lower.contains(part))
}

/// Whether a directory goes along: of templates, or a module of sentence-transformers (`1_Pooling`).
fn is_room(name: &str) -> bool {
    let module = name.trim_start_matches(|c: char| c.is_ascii_digit());
    ROOMS.contains(&name) || module.len() < name.len() && module.starts_with('_')
}

/// Whether it is an index, which is made anew.
fn is_map(name: &str) -> bool {
    name.ends_with(".index.json") || name == "param_name_map.json" || name == "shardloom.json"
}

/// Whether a file of this name is copied.
fn goes_along(name: &str) -> bool {
    // Of code nobody can tell what other code takes, but for the training's own.
    let left = match name.ends_with(".py") {
        true => name == CONVERTER,
        false => LEFT.iter().any(|begin| name.starts_with(begin)),
    };
    is_small(name) && !left && !is_map(name) && is_read(name)
}

fn read(directory: &Path, name: String) -> Result<SmallFile> {
    let path = directory.join(&name);
    json::refuse_dangling(&path)?;
    if io::standing(&path)? != Standing::File {
        let fault = Fault::new(Kind::Io, "is no regular file");
        return Err(fault.file(path.display().to_string()));
    }
    let bytes = ReadFile::open(&path)?.read_all(BYTES_MAX)?;
    json::refuse_pointer(&path, &bytes)?;
    if bytes.is_empty() && !name.ends_with(".py") {
        let fault = Fault::new(Kind::Corrupt, "is an empty file");
        let fault = fault.file(path.display().to_string());
        return Err(
            fault.hint("was the download or the copy broken off? Copy it again, or remove it")
        );
    }
    let is_json = Path::new(&name).extension() == Some("json".as_ref());
    let bytes = if is_json {
        json::without_mark(bytes)
    } else {
        bytes
    };
    Ok(SmallFile::new(name, bytes))
}

/// A config.json for weights that are written in `dtype`, with so many `rows` in their vocabulary, and
/// `quantised` so, or not at all, and with a head of its own if it is `untied`; none if it says that already.
pub(super) fn config_for(
    bytes: &[u8],
    dtype: Option<Dtype>,
    rows: Option<u64>,
    quantised: Option<&Value>,
    untied: bool,
) -> Option<Vec<u8>> {
    json::edited(bytes, |config| {
        let mut changed = note(config, quantised) | (untied && untie(config));
        if let (Some(rows), Some(value)) = (rows, config.get_mut("vocab_size"))
            && *value != rows
        {
            *value = rows.into();
            changed = true;
        }
        let Some(name) = dtype.and_then(torch_name) else {
            return changed;
        };
        let keys = ["torch_dtype", "dtype"];
        if !keys.iter().any(|key| config.contains_key(*key)) {
            config.insert(keys[0].to_owned(), name.into());
            return true;
        }
        for key in keys {
            if let Some(value) = config.get_mut(key)
                && *value != name
            {
                *value = name.into();
                changed = true;
            }
        }
        changed
    })
}

/// The type that most elements are written in.
pub(super) fn most(table: &Table, inventory: &Inventory) -> Option<Dtype> {
    let mut elements: Vec<(Dtype, u64)> = Vec::new();
    for made in table.values() {
        let source = made.pieces.first();
        let source = source.and_then(|piece| inventory.tensors.get(&piece.source));
        let Some(dtype) = made.dtype.or_else(|| Some(source?.value_dtype())) else {
            continue;
        };
        let count = made.shape.0.iter().product::<u64>();
        match elements.iter_mut().find(|(known, _)| *known == dtype) {
            Some((_, sum)) => *sum += count,
            None => elements.push((dtype, count)),
        }
    }
    let most = elements.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(dtype, _)| dtype)
}

/// Says that the head is one of its own, where a configuration has the model's or its text's numbers.
fn untie(config: &mut Map<String, Value>) -> bool {
    if let Some(Value::Object(text)) = config.get_mut("text_config")
        && text.contains_key(TIED)
    {
        text.insert(TIED.to_owned(), false.into());
    }
    config.insert(TIED.to_owned(), false.into()) != Some(false.into())
}

/// How a config.json calls a type of weights.
fn torch_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::BF16 => Some("bfloat16"),
        Dtype::F16 => Some("float16"),
        Dtype::F32 => Some("float32"),
        Dtype::F64 => Some("float64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_along_what_belongs_to_a_model() {
        for name in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model.v3",
            "tokenizer.model.v7m1",
            "special_tokens_map.json",
            "preprocessor_config.json",
            "LICENSE.txt",
            "tekken.json",
            "merges.txt",
            "chat_template.jinja",
            "modeling_x.py",
            "quantizer.py",
            "vocab.bpe",
            "source.spm",
            "qwen.tiktoken",
        ] {
            assert!(goes_along(name), "{name}");
        }
        for name in [
            "adapter_config.json",
            "trainer_state.json",
            "train.txt",
            "training_args.json",
            "hf_quant_config.json",
            "args.json",
            "zero_to_fp32.py",
            "ds_config.json",
            "eval_metrics.json",
            "generated_predictions.json",
            "kv_cache_scales.json",
            "nohup.txt",
            "peft_config.json",
            "run_config.json",
            "quantize_config.json",
            "optimizer.json",
            "model.safetensors.index.json",
            "consolidated.safetensors.index.json",
            "param_name_map.json",
            ".config.json",
            "log.txt",
            "model.safetensors",
        ] {
            assert!(!goes_along(name), "{name}");
        }
    }
}
