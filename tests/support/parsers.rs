//! Every parser of what others write, and what must hold of whatever it takes: tried with damaged inputs and the kept
//! ones by `tests/fuzz.rs`, and with what leads to new places of the program by `tests/fuzz/`.

use safetensors::SafeTensors;
use shardloom::catalog::FileSchema;
use shardloom::checkpoint::monitor::MonitorConfig;
use shardloom::cli::flags::size::parse_size;
use shardloom::config::based::{Layered, bases};
use shardloom::config::edit::{quoted, set_keys};
use shardloom::config::train_yaml::TrainConfig;
use shardloom::fault::{Fault, Kind, Result};
use shardloom::job::inspect::{Wanted, inspect};
use shardloom::measure::baseline::Baseline;
use shardloom::measure::shapes::read_shapes;
use shardloom::model::derive::{Sizes, configured, formed};
use shardloom::model::{Family, described};
use shardloom::plan::machine::Machine;
use shardloom::source::adapter;
use shardloom::source::meta::{Meta, Name};
use shardloom::store::manifest::Manifest;
use shardloom::store::{checkpoint2, ckpt, full_dir, journal, rank_dir, safetensors as ours};
use shardloom::strategy::derive::{Mesh, Rule, derive};
use shardloom::strategy::{Strategy, StrategyFile, name};
use shardloom::tensor::digest::checksum;
use std::path::{Path, PathBuf};

/// Whether an input was taken; what is wrong with that.
pub(crate) type Tried = std::result::Result<bool, String>;

/// A parser.
pub(crate) struct Parser {
    /// Its name, and its directory's below `tests/corpus`.
    pub(crate) name: &'static str,
    /// Tries it.
    pub(crate) parse: fn(&[u8]) -> Tried,
}

/// All of them.
pub(crate) const PARSERS: [Parser; 23] = [
    parser("safetensors", safetensors),
    parser("ckpt", ckpt_file),
    parser("strategy_messages", |bytes| strategy("s.ckpt", bytes)),
    parser("strategy_json", |bytes| strategy("s.json", bytes)),
    parser("index_map", index_map),
    parser("manifest", manifest),
    parser("journal", records),
    parser("meta", meta),
    parser("file_name", file_name),
    parser("checkpoint2", |bytes| Ok(checkpoint2::parse(bytes).is_ok())),
    parser("train_yaml", train_yaml),
    parser("job_yaml", job_yaml),
    parser("monitor_yaml", |bytes| {
        Ok(MonitorConfig::parse(&text(bytes)).is_ok())
    }),
    parser("machine", |bytes| Ok(Machine::parse(bytes).is_ok())),
    parser("baseline", |bytes| {
        Ok(with_file("b.json", bytes, |path| {
            Baseline::read(path).is_ok()
        }))
    }),
    parser("shapes", |bytes| {
        Ok(with_file("s.json", bytes, |path| read_shapes(path).is_ok()))
    }),
    parser("family", |bytes| Ok(Family::parse(bytes).is_ok())),
    parser("model_config", |bytes| {
        Ok(with_file("config.json", bytes, |path| {
            described(path.parent().expect("a directory"), "auto", None).is_ok()
        }))
    }),
    parser("adapter", |bytes| {
        Ok(with_file("adapter_config.json", bytes, |path| {
            adapter::meaning(path, None).is_ok()
        }))
    }),
    parser("texts", texts),
    parser("any_file", |bytes| Ok(with_file("model.bin", bytes, shown))),
    parser("torch_file", |bytes| {
        Ok(with_file("model.pt", bytes, shown))
    }),
    parser("distributed_torch", |bytes| {
        Ok(with_file(".metadata", bytes, |path| {
            shown(path.parent().expect("a directory"))
        }))
    }),
];

const fn parser(name: &'static str, parse: fn(&[u8]) -> Tried) -> Parser {
    Parser { name, parse }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of this thread, in memory where there is some.
fn room() -> PathBuf {
    thread_local! {
        static ROOM: tempfile::TempDir = {
            let memory = Path::new("/dev/shm");
            let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
            tempfile::tempdir_in(place).expect("a directory")
        };
    }
    ROOM.with(|room| room.path().to_path_buf())
}

/// Looks at a file of these bytes, alone in its directory.
fn with_file<T>(name: &str, bytes: &[u8], look: impl FnOnce(&Path) -> T) -> T {
    let path = room().join(name);
    std::fs::write(&path, bytes).expect("written");
    let found = look(&path);
    std::fs::remove_file(&path).expect("removed");
    found
}

fn shown(path: &Path) -> bool {
    inspect(path, None, None, Wanted::default()).is_ok()
}

/// Reads a whole file's bytes as the program does.
pub(crate) fn read_safetensors(bytes: &[u8]) -> Result<FileSchema> {
    let short = || Fault::new(Kind::Corrupt, "short");
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| short())?;
    let header = rest.get(..length).ok_or_else(short)?;
    ours::parse(header, bytes.len() as u64)
}

/// What is taken is what the reference reads; what it takes and we don't is told by a short list of reasons.
fn safetensors(bytes: &[u8]) -> Tried {
    let (schema, theirs) = match (read_safetensors(bytes), SafeTensors::deserialize(bytes)) {
        (Err(fault), Ok(_)) => {
            let text = fault.to_string();
            let known = ["two tensors of this name", "duplicate", "twice", "key"];
            return match known.iter().any(|reason| text.contains(reason)) {
                true => Ok(false),
                false => Err(format!("the reference takes what is refused: {text}")),
            };
        }
        (Err(_), Err(_)) => return Ok(false),
        (Ok(_), Err(error)) => return Err(format!("taken, the reference says: {error}")),
        (Ok(schema), Ok(theirs)) => (schema, theirs),
    };
    let (count, other) = (schema.entries.len(), theirs.len());
    if count != other {
        return Err(format!("{count} tensors, {other}"));
    }
    for entry in &schema.entries {
        let view = theirs.tensor(&entry.name).map_err(|e| e.to_string())?;
        let shape: Vec<u64> = view.shape().iter().map(|dim| *dim as u64).collect();
        let range = &entry.segments[0];
        let place = |at: u64| usize::try_from(at).expect("inside the file");
        let data = &bytes[place(range.start)..place(range.end)];
        if shape != entry.shape.0 || data != view.data() {
            return Err(format!("{} is another tensor", entry.name));
        }
    }
    Ok(true)
}

fn ckpt_file(bytes: &[u8]) -> Tried {
    let size = bytes.len() as u64;
    let read_at = |buffer: &mut [u8], offset: u64| {
        let at = usize::try_from(offset).ok();
        let part = at.and_then(|at| bytes.get(at..at.checked_add(buffer.len())?));
        let part = part.ok_or_else(|| Fault::new(Kind::Io, "beyond the end"))?;
        buffer.copy_from_slice(part);
        Ok(())
    };
    let Ok(schema) = ckpt::parse(size, &read_at) else {
        return Ok(false);
    };
    let mut ranges: Vec<_> = schema.entries.iter().flat_map(|e| &e.segments).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    if !apart || ranges.last().is_some_and(|last| last.end > size) {
        return Err(format!(
            "tensors overlap or reach beyond the end: {ranges:?}"
        ));
    }
    Ok(true)
}

fn strategy(file: &str, bytes: &[u8]) -> Tried {
    let Ok(strategy) = Strategy::read(&[StrategyFile { name: file, bytes }]) else {
        return Ok(false);
    };
    for (_, layout) in strategy.iter().take(20) {
        let _ = layout.fit_full(&[4, 6]);
        let _ = layout.fit_shard(&[2]);
        let layout = &layout.layout;
        if layout.ranks() < 1 << 12 {
            for rank in 0..layout.ranks().min(16) {
                let mut holders = layout.holders(&layout.cell(rank));
                if !holders.any(|holder| holder == rank) {
                    return Err(format!("rank {rank} doesn't hold its own cell: {layout:?}"));
                }
            }
        }
    }
    Ok(true)
}

fn index_map(bytes: &[u8]) -> Tried {
    let Ok(map) = full_dir::parse_map(bytes) else {
        return Ok(false);
    };
    stay_inside(map.values().map(String::as_str))
}

/// Whether none of these names leads out of its directory.
fn stay_inside<'a>(mut files: impl Iterator<Item = &'a str>) -> Tried {
    let climbs = |file: &str| Path::new(file).is_absolute() || file.split('/').any(|p| p == "..");
    match files.find(|file| climbs(file)) {
        Some(file) => Err(format!("{file} leaves the directory")),
        None => Ok(true),
    }
}

/// The bytes of a manifest before its own checksum, which is added: nothing else would be looked at.
fn manifest(bytes: &[u8]) -> Tried {
    let crc = checksum(bytes);
    let end = format!(",\"crc64\":\"{crc:016x}\"}}\n");
    let whole = [bytes, end.as_bytes()].concat();
    let Ok(manifest) = Manifest::parse(&whole) else {
        return Ok(false);
    };
    stay_inside(manifest.files.iter().map(|file| &*file.path))
}

fn records(bytes: &[u8]) -> Tried {
    let read = with_file("journal", bytes, journal::read);
    let records = read.map_err(|fault| fault.to_string())?;
    let taken: usize = records.iter().map(|record| record.len() + 16).sum();
    match taken <= bytes.len() {
        true => Ok(!records.is_empty()),
        false => Err(format!("{taken} bytes of records in {}", bytes.len())),
    }
}

fn meta(bytes: &[u8]) -> Tried {
    let Some((meta, name)) = Meta::parse(bytes) else {
        return Ok(false);
    };
    let written = meta.bytes().map_err(|fault| fault.to_string())?;
    match Meta::parse(&written) {
        Some((_, again)) if again == name => Ok(true),
        other => Err(format!("{name:?} is written as {other:?}")),
    }
}

/// What a trainer's file is called says what it is called.
fn file_name(bytes: &[u8]) -> Tried {
    let text = text(bytes);
    let Some((name, rank)) = Name::parse(&text) else {
        return Ok(false);
    };
    let again = Name::parse(&name.file(rank.unwrap_or(0)));
    match again == Some((name.clone(), rank)) {
        true => Ok(true),
        false => Err(format!("{name:?} is read as {again:?}")),
    }
}

/// What a key of a configuration is set to is what it says then; else it is no configuration.
fn train_yaml(bytes: &[u8]) -> Tried {
    let text = text(bytes);
    let _ = bases(&text);
    if TrainConfig::parse(&text).is_err() {
        return Ok(false);
    }
    let set = set_keys(&text, &[("load_checkpoint", quoted("it's there"))]);
    match TrainConfig::parse(&set) {
        Ok(config) if config.load_checkpoint.as_deref() != Some("it's there") => Err(format!(
            "the key is {:?} in:\n{set}",
            config.load_checkpoint
        )),
        _ => Ok(true),
    }
}

fn job_yaml(bytes: &[u8]) -> Tried {
    Ok(with_file("job.yaml", bytes, |path| {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| Fault::new(Kind::Io, error.to_string()))
        };
        let _ = Layered::read(path, &read).and_then(|layered| layered.config());
        let _ = formed(path);
        configured(path, None).is_ok()
    }))
}

fn texts(bytes: &[u8]) -> Tried {
    let text = text(bytes);
    let _ = (
        parse_size(&text),
        rank_dir::rank_of(&text),
        name::split_stage(&text),
    );
    let _ = (
        name::matches(&text, "a.b.weight"),
        name::natural(&text, "a10"),
    );
    let _ = (full_dir::check_inside(&text), Sizes::parse(&text));
    let rule = Rule::parse(&text);
    let mesh = Mesh::parse(&text).or_else(|_| Mesh::parse("dp=2,tp=2"));
    if let (Ok(mesh), Ok(rule)) = (mesh, rule) {
        let tensors = [("layers.0.weight".to_owned(), vec![4, 8])];
        let _ = derive(&mesh, &[rule], Some(-1), &tensors);
    }
    Ok(true)
}
