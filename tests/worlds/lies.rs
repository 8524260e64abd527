//! Sources that lie: each is refused by name, on all processes, and nothing is written.

use super::{copied, run};
use crate::support::command::error_line;
use std::path::Path;

/// Puts `new` in the place of `old`, which is as long, wherever it stands in a file.
fn swap(path: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = std::fs::read(path).expect("a file");
    let places: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(old))
        .collect();
    assert!(
        !places.is_empty() && old.len() == new.len(),
        "{old:?} isn't there"
    );
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(new);
    }
    std::fs::write(path, bytes).expect("it is written");
}

fn cut(path: &Path, by: usize) {
    let bytes = std::fs::read(path).expect("a file");
    std::fs::write(path, &bytes[..bytes.len().saturating_sub(by)]).expect("it is written");
}

/// What is done to a file of a recorded source.
enum Lie {
    Nothing,
    /// What stands somewhere in it, and what is put in its place.
    Swap(&'static str, &'static [u8], &'static [u8]),
    /// So many bytes are taken from its end.
    Cut(&'static str, usize),
    Gone(&'static str),
    /// What a file of this name has.
    Put(&'static str, &'static [u8]),
}

const TAR: &[u8] = b"ustar\x0000";
const STEP: &str = "global_step2";

/// Sources, and a word of what is said of them.
const LIES: &[(&str, Lie, &str)] = &[
    ("hostile_call", Lie::Nothing, "posix.system"),
    ("dcp_shard0", Lie::Cut("__1_0.distcp", 40), "truncated"),
    ("dcp_shard0", Lie::Cut("__1_0.distcp", 1 << 20), "truncated"),
    (
        "dcp_shard0",
        Lie::Gone("__0_0.distcp"),
        "no process finds it",
    ),
    ("dcp_shard0", Lie::Cut(".metadata", 50), "its pickle"),
    (
        "dcp_shard0",
        Lie::Swap(".metadata", b"__0_0.distcp", b"../_0.distcp"),
        "outside",
    ),
    (
        "dcp_shard0",
        Lie::Swap(".metadata", b"__0_0.distcp", b"/_0_0.distcp"),
        "outside",
    ),
    (
        "dcp_shard0",
        Lie::Swap(".metadata", b"\x04even", b"\x04flat"),
        "flat",
    ),
    (
        "dcp_shard0",
        Lie::Swap(".metadata", b"relative_path", b"relative_pith"),
        "relative_pith",
    ),
    (
        "dcp_shard0",
        Lie::Swap("__0_0.distcp", b"K\x04K\x06\x86", b"K\x02K\x06\x86"),
        "its archive has",
    ),
    (
        "dcp_shard0",
        Lie::Swap("__0_0.distcp", b"archive/data/0", b"archive/data/1"),
        "is missing",
    ),
    ("pt_views", Lie::Cut("model.pt", 30), "truncated"),
    (
        "pt_views",
        Lie::Swap("model.pt", b"K\x0eK\x01\x86", b"K\xffK\x01\x86"),
        "reaches byte",
    ),
    (
        "pt_views",
        Lie::Swap("model.pt", b"X\x01\0\0\x005", b"X\x01\0\0\x007"),
        "is missing",
    ),
    (
        "pt_views",
        Lie::Swap("model.pt", b"X\x01\0\0\x005", b"X\x01\0\0\0/"),
        "no number",
    ),
    (
        "pt_views",
        Lie::Swap("model.pt", b"model/data/1", b"model/data/0"),
        "twice",
    ),
    (
        "pt_views",
        Lie::Swap("model.pt", b"little", b"bigger"),
        "bigger-endian",
    ),
    (
        "pt_views",
        Lie::Swap("model.pt", b"ctorch\nShortStorage", b"ctorch\nQInt8Storage"),
        "QInt8Storage",
    ),
    (
        "pt_training",
        Lie::Swap("checkpoint_00012.pth", b"OrderedDict", b"OrderedEval"),
        "OrderedEval",
    ),
    (
        "dcp_hf_shards",
        Lie::Gone("shard-00001-model-00001-of-00001.safetensors"),
        "has no shard-00001",
    ),
    ("dcp_shard0", Lie::Gone(".metadata"), "is missing"),
    (
        "dcp_shard0",
        Lie::Put(".metadata", b""),
        "distributed checkpoint",
    ),
    (
        "dcp_shard0",
        Lie::Put("__1_0.distcp", b"(\xb5/\xfd\x04\0"),
        "bytes",
    ),
    (
        "pt_views",
        Lie::Swap(
            "model.pt",
            b"PK\x01\x02\0\0\0\0\x08\x08\0\0",
            b"PK\x01\x02\0\0\0\0\x08\x08\x08\0",
        ),
        "is compressed",
    ),
    (
        "pt_views",
        Lie::Put(
            "model.pt",
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03.",
        ),
        "of the old kind",
    ),
    ("pt_views", Lie::Put("model.pt", TAR), "tar archive"),
    (
        "pt_views",
        Lie::Put("model.pt", b"\x80\x04cos\nsystem\n."),
        "pickle",
    ),
    ("pt_views", Lie::Put("model.pt", b""), "is empty"),
    (
        "ds_zero1",
        Lie::Gone("global_step2/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"),
        "the others tell of it",
    ),
    (
        "ds_zero2",
        Lie::Gone("global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt"),
        "is missing",
    ),
    (
        "ds_zero1",
        Lie::Gone("global_step2/mp_rank_00_model_states.pt"),
        "mp_rank_00_model_states.pt: is missing",
    ),
    (
        "ds_zero3",
        Lie::Cut(
            "global_step2/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
            90,
        ),
        "truncated",
    ),
    ("ds_zero3", Lie::Put("latest", b"../../elsewhere"), STEP),
    (
        "ds_zero2",
        Lie::Put("global_step2/mp_rank_01_model_states.pt", b"PK\x03\x04"),
        "a part of each weight",
    ),
    (
        "ds_zero2",
        Lie::Put(
            "global_step2/layer_0_expert_3_mp_rank_00_model_states.pt",
            b"PK\x03\x04",
        ),
        "one layer or expert",
    ),
    (
        "ds_universal",
        Lie::Gone("zero/up.weight/fp32.pt"),
        "up.weight: is missing",
    ),
    (
        "ds_universal",
        Lie::Gone("zero/up.weight/exp_avg.pt"),
        "up.weight/exp_avg.pt: up.weight: is missing",
    ),
    (
        "ds_universal",
        Lie::Gone("zero/up.weight"),
        "up.weight/fp32.pt: up.weight: is missing",
    ),
    // A weight that the optimizer doesn't have, as its file is one of all the model's.
    (
        "ds_universal",
        Lie::Gone("zero/table"),
        "table/fp32.pt: table: is missing",
    ),
    (
        "ds_universal",
        Lie::Gone("mp_rank_00_model_states.pt"),
        "it tells which weights there are",
    ),
    (
        "ds_universal3",
        Lie::Gone("zero/norm.bias"),
        "norm.bias/fp32.pt: norm.bias: is missing",
    ),
    (
        "ds_universal",
        Lie::Cut("zero/up.weight/exp_avg.pt", 20),
        "truncated",
    ),
    (
        "hyper_parallel",
        Lie::Gone("_rank1_.safetensors"),
        "no process finds it",
    ),
    (
        "hyper_parallel",
        Lie::Swap(".metadata", b"_rank1_.safetensors", b"../nk1_.safetensors"),
        "outside",
    ),
    (
        "hyper_parallel",
        Lie::Swap("_rank1_.safetensors", b"model.cols", b"model.rows"),
        "the file has it as",
    ),
    (
        "hyper_parallel",
        Lie::Swap(".metadata", b"StorageInfo", b"StorageEval"),
        "StorageEval",
    ),
    // The key of another tensor.
    (
        "hyper_parallel",
        Lie::Swap(".metadata", b"h\x9ah)ub", b"h\x9ah\x07ub"),
        "where model.w lies",
    ),
    (
        "dyn_dp2tp2",
        Lie::Swap(
            "iteration_00000020/metadata.json",
            b"checkpoint-model-0000001",
            b"../ckpoint-model-0000001",
        ),
        "outside",
    ),
];

impl Lie {
    fn tell(&self, src: &Path) {
        match self {
            Lie::Nothing => {}
            Lie::Swap(file, old, new) => swap(&src.join(file), old, new),
            Lie::Cut(file, by) => cut(&src.join(file), *by),
            Lie::Gone(file) if src.join(file).is_dir() => {
                std::fs::remove_dir_all(src.join(file)).expect("it was there");
            }
            Lie::Gone(file) => std::fs::remove_file(src.join(file)).expect("it was there"),
            Lie::Put(file, bytes) => {
                // A tape's archive has its mark behind the first file's name.
                let mut bytes = bytes.to_vec();
                if bytes == TAR {
                    bytes.splice(0..0, [b'a'; 257]);
                }
                std::fs::write(src.join(file), bytes).expect("it is written");
            }
        }
    }
}

// proves P103
#[test]
fn sources_that_lie_are_refused_and_nothing_is_written() {
    for (number, (name, lie, word)) in LIES.iter().enumerate() {
        let room = tempfile::tempdir().expect("a directory");
        let src = copied(name, room.path());
        lie.tell(&src);
        let out = room.path().join("out");
        let processes = if number % 8 == 3 { 4 } else { 1 };
        let run = run(
            processes,
            &format!("unify --src {} --dst {}", src.display(), out.display()),
        );
        assert_eq!(run.status.code(), Some(1), "{name}, {word}: {run:#?}");
        assert!(error_line(&run).contains(word), "{name}, {word}: {run:#?}");
        let left = std::fs::read_dir(room.path()).expect("a directory").count();
        assert_eq!(left, 1, "{name}, {word}: something was written");
    }
    assert!(!Path::new("/tmp/shardloom-example-canary").exists());
}
