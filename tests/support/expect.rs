//! What each recorded step must give: MindSpore's output, or what is right where MindSpore is not.

use crate::support::ckpt;
use crate::support::fixtures::{Step, listing, ranks};
use crate::support::oracle::Strategy;
use crate::support::tensors::{self, Contents};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a step must give.
#[derive(Clone)]
pub(crate) enum Expect {
    /// These files and no others.
    Files(BTreeMap<PathBuf, File>),
    /// Full weights: which of several equally large tensors lies in which part is free.
    Full {
        files: BTreeMap<PathBuf, File>,
        size_scale: u64,
    },
    /// A merged strategy with the same items as this file.
    Strategy(PathBuf),
    /// An error that mentions one of these.
    Error(Vec<String>),
    /// Not run, for this reason.
    Skip(&'static str),
}

/// What a written file must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum File {
    Safetensors(Contents),
    Ckpt(Vec<ckpt::Record>),
    Json(Value),
}

/// What `step` must give: what MindSpore wrote, but where MindSpore is wrong or refuses what makes sense.
pub(crate) fn expectation(step: &Step) -> Result<Expect, String> {
    let key = (
        step.case.as_str(),
        step.op.as_str(),
        step.input.as_deref().unwrap_or_default(),
        step.src_strategy.as_deref().unwrap_or_default(),
        step.dst_strategy.as_deref().unwrap_or_default(),
    );
    let process_number = step.args.get("process_num").and_then(Value::as_u64);
    if process_number == Some(2) {
        return Ok(Expect::Skip("the same call with two MindSpore processes"));
    }
    if step.args.contains_key("split_dst_file") {
        return Ok(Expect::Skip("sub-tasks: MPI processes share the work here"));
    }
    if step.args.contains_key("file_name_regex") {
        return Ok(Expect::Skip("convert takes no pattern"));
    }
    if step.arg("choice_func") == Some("bad_choice") {
        return Ok(Expect::Skip("a Python callback"));
    }
    Ok(match key {
        // MindSpore is wrong.
        ("bad_inputs", "unify", _, "strategy/dev2.ckpt", _) => {
            // It merges the first two of four directories only.
            error(&["dev2.ckpt", "rank_2", "rank_3", "src", "w"])
        }
        ("known_bad_dedup", "unify", "dedup_multi_axis", ..) => error(&["net.blocks.0.w1"]),
        ("known_bad_dedup", "unify", "dedup_rep_opt", ..) => {
            error(&["net.blocks.0.w1", "net.blocks.0.w2"])
        }
        ("known_bad_dedup" | "opt_shard_odd_axis_order", "unify", ..)
            if step.mindspore_output_is_wrong.is_some() =>
        {
            unified_by_the_oracle(step)?
        }
        ("opt_shard_odd_axis_order", "split", _, _, "strategy/opt_map01.ckpt") => {
            cut_by_the_oracle(step)?
        }
        ("tp_dp_remove_redundancy", "reshard", ..) => cut_by_the_oracle(step)?,
        // MindSpore refuses, or fails, where the meaning is clear.
        ("reshard_8_to_6", "reshard", ..)
        | ("bad_inputs", "reshard", _, _, "strategy/dev6.ckpt") => cut_by_the_oracle(step)?,
        ("multi_axis", "split", _, _, "strategy/multi_a.json") => files(step, "split_a")?,
        ("multi_axis", "unify", _, "strategy/multi_a.json", _) => full(step, "unified_a")?,
        ("tp_column_row", "reshard", "full", "", _) => files(step, "full_rank0_to_tp4")?,
        ("convert", "convert", "src/rank_0", ..) => files(step, "st_dir/rank_0")?,
        ("convert", "convert", "st_single/single.safetensors", ..) => files(step, "ck_single")?,
        ("save_formats", "convert", "out/append.ckpt", ..) => {
            Expect::Skip("texts, which MindSpore refuses: tests/cli.rs converts them")
        }
        // MindSpore makes something of nothing.
        ("merge_strategies", "merge_strategy", "empty", ..) => error(&["empty"]),
        // A file name that depends on which of MindSpore's internal paths was taken.
        ("partial_strategy", "reshard", "src_ckpt", _, "strategy/superset.ckpt") => {
            let Expect::Files(files) = files(step, "to_superset_ckpt")? else {
                return Err("not files".to_owned());
            };
            let plain = |path: PathBuf| path.to_string_lossy().replace("_part0", "").into();
            Expect::Files(files.into_iter().map(|(p, f)| (plain(p), f)).collect())
        }
        // MindSpore is right.
        _ => match (&step.expected, step.op.as_str()) {
            (None, _) => error(culprits(step)?),
            (Some(expected), "merge_strategy") => Expect::Strategy(merged_path(step, expected)),
            (Some(expected), "unify") => full(step, expected)?,
            (Some(expected), _) => files(step, expected)?,
        },
    })
}

/// What the message of a step that must fail has to mention one of.
fn culprits(step: &Step) -> Result<&'static [&'static str], String> {
    let strategy = step
        .dst_strategy
        .as_deref()
        .or(step.src_strategy.as_deref());
    let input = step.input.as_deref().unwrap_or_default();
    Ok(
        match (
            step.case.as_str(),
            input,
            strategy.unwrap_or_default().trim_start_matches("strategy/"),
        ) {
            ("bad_inputs", "full", "wrong_rank.ckpt" | "axis_oob.ckpt" | "opt_no_rep.ckpt") => {
                &["w"]
            }
            ("bad_inputs", "full", "opt_bad_step.ckpt" | "opt_toobig.ckpt") => &["w"],
            ("bad_inputs", "full", "absent.ckpt") => &["strategy/absent.ckpt"],
            ("bad_inputs", "full", "empty.ckpt") => &["strategy/empty.ckpt"],
            ("bad_inputs", "full", "garbage.ckpt") => &["strategy/garbage.ckpt"],
            ("bad_inputs", "full", "no_layout.ckpt") => &["strategy/no_layout.ckpt"],
            ("bad_inputs", "full", "no_layout.json") => &["strategy/no_layout.json"],
            ("bad_inputs", "full", "bad.json") => &["strategy/bad.json"],
            ("bad_inputs", "full", "dash.ckpt") => &["my-w", "strategy/dash.ckpt"],
            ("bad_inputs", "full", "dash2.ckpt") => &["0-my-w", "my-w", "strategy/dash2.ckpt"],
            ("bad_inputs", "src", "dev8.ckpt") => &["rank_4", "rank_5", "rank_6", "rank_7"],
            ("bad_inputs", "src", "other.ckpt") => &["w"],
            ("bad_inputs", "nothing", _) => &["nothing", "rank_0", "rank_1", "rank_2", "rank_3"],
            ("bad_inputs", "trunc", _) => &["trunc/rank_0/net.safetensors"],
            ("file_choice", "gap", _) => &["gap/rank_1", "rank_1"],
            ("file_choice", "both", _) => &["both"],
            ("merge_strategies", "mixed", _) => &["mixed"],
            ("merge_strategies", "nodir", _) => &["nodir"],
            ("merge_strategies", "nolayout", _) => &["nolayout/s.ckpt"],
            ("merge_strategies", "garbage", _) => &["garbage/s.ckpt"],
            ("merge_strategies", "full", _) => &["merged/stage1_only.ckpt"],
            ("split_names", "two_files_no_map", _) => &["param_name_map.json", "two_files_no_map"],
            ("split_names", "indivisible", _) => {
                &["net.blocks.0.w1", "net.blocks.0.w2", "net.blocks.0.b"]
            }
            ("save_formats", "out/enc_gcm.ckpt", _) => &["out/enc_gcm.ckpt"],
            ("save_formats", "out/append_str.safetensors", _) => &["out/append_str.safetensors"],
            _ => return Err("no expectation for this error".to_owned()),
        },
    )
}

fn error(mentions: &[&str]) -> Expect {
    Expect::Error(mentions.iter().map(|text| (*text).to_owned()).collect())
}

/// A recorded merge's output, which may be its directory.
fn merged_path(step: &Step, expected: &str) -> PathBuf {
    let path = step.path(expected);
    match listing(&path).as_slice() {
        [file] if path.is_dir() => path.join(file),
        _ => path,
    }
}

/// The files of a recorded output.
fn files(step: &Step, expected: &str) -> Result<Expect, String> {
    let root = step.path(expected);
    let only = step.args.get("rank_id").and_then(Value::as_u64);
    let only = only.map(|rank| format!("rank_{rank}"));
    let mut files = BTreeMap::new();
    if root.is_file() {
        let name = root.file_name().expect("a file's name");
        files.insert(PathBuf::from(name), read(&root)?);
        return Ok(Expect::Files(files));
    }
    for file in listing(&root) {
        if only.as_ref().is_none_or(|rank| file.starts_with(rank)) {
            files.insert(file.clone(), read(&root.join(&file))?);
        }
    }
    Ok(Expect::Files(files))
}

/// The full weights of a recorded output; filtered names must appear nowhere, so not beside them either.
fn full(step: &Step, expected: &str) -> Result<Expect, String> {
    let Expect::Files(mut files) = files(step, expected)? else {
        return Err("not files".to_owned());
    };
    if step.arg("choice_func").is_some() {
        let hyper = PathBuf::from("hyper_param.safetensors");
        if let Some(File::Safetensors(contents)) = files.get_mut(&hyper) {
            contents
                .tensors
                .retain(|name, _| !name.starts_with("adam_"));
        }
    }
    let size_scale = if step.case == "unify_multipart" {
        1 << 20
    } else {
        1
    };
    Ok(Expect::Full { files, size_scale })
}

/// What a split or reshard must write, cut by the oracle: MindSpore's output is wrong or missing.
fn cut_by_the_oracle(step: &Step) -> Result<Expect, String> {
    let mut source = ranks(&step.path(step.input.as_deref().unwrap_or_default()))?;
    let destination = step.strategy(step.dst_strategy.as_ref())?;
    let (whole, source_strategy) = match &step.src_strategy {
        Some(name) => {
            let strategy = Strategy::read(&step.path(name))?;
            (strategy.merge(&source)?, Some(strategy))
        }
        None => (source.remove(&0).ok_or("no input")?, None),
    };
    let mut files = BTreeMap::new();
    for rank in 0..destination.ranks() {
        let mut shards = destination.cut(&whole, rank)?;
        if let Some(strategy) = &source_strategy {
            let private = source
                .get(&(rank % strategy.stage_ranks()))
                .ok_or("no rank")?;
            let outside = |name: &&String| !strategy.knows(name) && !destination.knows(name);
            for name in private.keys().filter(outside) {
                shards.insert(name.clone(), private[name].clone());
            }
        }
        let name = step
            .arg("ckpt_prefix")
            .map_or("net".to_owned(), |prefix| format!("{prefix}{rank}"));
        let format = step.arg("output_format").unwrap_or("safetensors");
        let file = match format {
            "ckpt" => File::Ckpt(ckpt::from_tensors(&shards)),
            _ => File::Safetensors(Contents {
                tensors: shards,
                metadata: BTreeMap::from([("format".to_owned(), "ms".to_owned())]),
            }),
        };
        files.insert(PathBuf::from(format!("rank_{rank}/{name}.{format}")), file);
    }
    Ok(Expect::Files(files))
}

/// MindSpore's full weights with the values replaced by the oracle's.
fn unified_by_the_oracle(step: &Step) -> Result<Expect, String> {
    let source = ranks(&step.path(step.input.as_deref().unwrap_or_default()))?;
    let whole = step.strategy(step.src_strategy.as_ref())?.merge(&source)?;
    let expected = full(step, step.expected.as_deref().ok_or("no output")?)?;
    let Expect::Full {
        mut files,
        size_scale,
    } = expected
    else {
        return Err("not full weights".to_owned());
    };
    let part = files.get_mut(Path::new("part0.safetensors"));
    let Some(File::Safetensors(contents)) = part else {
        return Err("no part".to_owned());
    };
    contents.tensors = whole;
    Ok(Expect::Full { files, size_scale })
}

pub(crate) fn read(path: &Path) -> Result<File, String> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => File::Safetensors(tensors::read(path)?),
        Some("ckpt") => File::Ckpt(ckpt::read(path)?),
        Some("json") => {
            let text = std::fs::read(path).map_err(|error| error.to_string())?;
            File::Json(serde_json::from_slice(&text).map_err(|error| error.to_string())?)
        }
        _ => return Err(format!("{}: a file of no known kind", path.display())),
    })
}
