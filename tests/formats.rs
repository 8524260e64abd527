//! Files of other kinds: told by their first bytes, refused with what they are and what to do, or read
//! whatever their names say.

use crate::support::{Run, command, fixtures, sample, tensors};
use command::{RESHARD, alone, error_line, nothing_written, object};
use sample::{Sample, image};
use std::path::Path;

/// A kind of file that is no weights of ours.
struct Other {
    bytes: Vec<u8>,
    /// What the error says that it is.
    is: &'static str,
    /// What the hint says to do.
    hint: &'static str,
}

fn other(bytes: impl Into<Vec<u8>>, is: &'static str, hint: &'static str) -> Other {
    let bytes = bytes.into();
    Other { bytes, is, hint }
}

/// A zip archive as far as its first entry's name.
fn zip(first: &str) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.resize(30, 0);
    bytes.extend(first.bytes());
    bytes.resize(1024, 7);
    bytes
}

fn others(sample: &Sample) -> Vec<Other> {
    let pointer = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n\
                   size 4976698672\n";
    let strategy = std::fs::read(sample.path("four.ckpt")).expect("a strategy");
    let mut encrypted = b"\xd8\x5e\x3a\x7f".to_vec();
    encrypted.resize(200, 9);
    vec![
        other(zip("archive/data.pkl"), "PyTorch file", "downloaded"),
        other(
            &b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M"[..],
            "PyTorch file of the old kind",
            "torch.save",
        ),
        other(
            &b"\x80\x02}q\0(X\x05\0\0\0model"[..],
            "pickle",
            "safetensors",
        ),
        other(&b"GGUF\x03\0\0\0\x23\x01\0\0"[..], "GGUF", "safetensors"),
        other(&b"\x93NUMPY\x01\0v\0{'descr'"[..], "NumPy", "numpy.load"),
        other(zip("arr_0.npy"), "NumPy", "numpy.load"),
        other(&b"\x89HDF\r\n\x1a\n\0\0"[..], "HDF5", "safetensors"),
        other(&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], "gzip", "unpack"),
        other("<!DOCTYPE html><html><head><title>403", "HTML", "download"),
        other("{\"error\":\"Invalid credentials\"}", "JSON", "download"),
        other("Entry not found", "Entry not found", "download"),
        other(pointer, "4976698672 bytes", "git lfs pull"),
        other(strategy, "strategy", "weights are meant here"),
        other(encrypted, "encrypted (GCM)", "without one"),
        other("", "is empty", "downloaded"),
        other(vec![0; 4096], "zeros", "downloaded"),
    ]
}

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4,
    "vocab_size": 32, "tie_word_embeddings": false}"#;

/// Commands that open the file in `m`, or rank 2's in `src`.
const COMMANDS: [&str; 6] = [
    "inspect @m/model.safetensors",
    "unify --src @m --dst @out",
    "convert @m --to ckpt --dst @out",
    "import --hf @m --dst @out",
    RESHARD,
    "unify --src @full --lora @m/model.safetensors --lora-scaling 1 --dst @out",
];

fn run(sample: &Sample, processes: u32, line: &str) -> Run {
    command::on(processes, &sample.args(line))
}

/// It ended with 1, said `is` of the file, and `hint`; and nothing was written.
#[track_caller]
fn told(sample: &Sample, run: &Run, other: &Other) {
    assert_eq!(run.status.code(), Some(1), "{}: {run:#?}", other.is);
    let line = error_line(run);
    assert!(line.contains("safetensors: "), "{run:#?}");
    assert!(line.contains(other.is), "{}: {run:#?}", other.is);
    let hint = run.stderr.lines().find(|line| line.contains("hint: "));
    let says = hint.is_some_and(|hint| hint.contains(other.hint));
    assert!(says, "{}: {run:#?}", other.hint);
    nothing_written(sample);
}

// proves P100, P102
#[test]
fn other_kinds_of_files_are_told_by_every_command() {
    let sample = Sample::in_memory();
    tensors::write_bytes(&sample.path("m/config.json"), CONFIG.as_bytes());
    for (number, other) in others(&sample).iter().enumerate() {
        for file in ["m/model.safetensors", "src/rank_2/net.safetensors"] {
            tensors::write_bytes(&sample.path(file), &other.bytes);
        }
        for (at, line) in COMMANDS.iter().enumerate() {
            // A strategy is something to inspect.
            if !(at == 0 && other.is == "strategy") {
                told(&sample, &run(&sample, 1, line), other);
            }
        }
        let line = COMMANDS[1 + number % (COMMANDS.len() - 1)];
        if number % 2 == 0 {
            told(&sample, &run(&sample, 4, line), other);
        }
    }
}

// proves P102
#[test]
fn other_kinds_of_directories_are_told() {
    let cases: [(&[&str], &str); 5] = [
        (&["pytorch_model.bin"], "pytorch_model.bin"),
        (
            &[".metadata", "__0_0.distcp"],
            "PyTorch distributed checkpoint",
        ),
        (
            &[
                "latest",
                "global_step2/zero_pp_rank_0_mp_rank_00_optim_states.pt",
            ],
            "DeepSpeed",
        ),
        (&["rank_0/net.pt", "rank_1/net.pt"], "PyTorch"),
        (&["m.gguf"], "GGUF"),
    ];
    let commands = [
        "inspect @m",
        "unify --src @m --dst @out",
        "convert @m --to ckpt --dst @out",
        "import --hf @m --dst @out",
    ];
    for (number, (files, is)) in cases.into_iter().enumerate() {
        let sample = Sample::in_memory();
        tensors::write_bytes(&sample.path("m/config.json"), CONFIG.as_bytes());
        for file in files {
            tensors::write_bytes(&sample.path("m").join(file), &zip("x/data.pkl"));
        }
        for (at, line) in commands.iter().enumerate() {
            let processes = if at == 1 + number % 3 { 4 } else { 1 };
            let run = run(&sample, processes, line);
            assert_eq!(run.status.code(), Some(1), "{run:#?}");
            assert!(error_line(&run).contains(is), "{is}: {run:#?}");
            assert!(run.stderr.contains("hint: "), "{run:#?}");
            nothing_written(&sample);
        }
    }
}

// proves P101
#[test]
fn names_that_begin_with_a_dot_are_no_weights() {
    let (plain, dotted) = (Sample::in_memory(), Sample::in_memory());
    let named = |sample: &Sample| {
        for rank in 0..4 {
            let room = sample.path(&format!("src/rank_{rank}"));
            let step = room.join(format!("net_rank_{rank}-1_1.safetensors"));
            std::fs::rename(room.join("net.safetensors"), step).expect("it can be renamed");
        }
    };
    named(&plain);
    named(&dotted);
    let junk = |path: &str| tensors::write_bytes(&dotted.path(path), &[5; 300]);
    for rank in 0..4 {
        for name in ["._net_rank_R-1_1", ".net_rank_R-2_2", "._net_rank_R-1_1"] {
            let name = name.replace('R', &rank.to_string());
            junk(&format!("src/rank_{rank}/{name}.safetensors"));
            junk(&format!("src/rank_{rank}/{name}.ckpt"));
        }
        junk(&format!("src/rank_{rank}/.nfs000000000123.safetensors"));
    }
    junk("full/._model.safetensors");
    for (line, made) in [
        (RESHARD, "out"),
        ("unify --src @full --dst @full_out", "full_out"),
        ("convert @src --to ckpt --dst @converted", "converted"),
    ] {
        let weights = [&plain, &dotted].map(|sample| {
            alone(&sample.args(line)).succeeds();
            let files = image(&sample.path(made)).into_iter();
            let weights = files.filter(|(path, _)| path != Path::new("shardloom.json"));
            weights.collect::<Vec<_>>()
        });
        assert_eq!(weights[0], weights[1], "{line}");
    }
    for line in ["checkpoints list @src --json", "checkpoints latest @src"] {
        let shown = [&plain, &dotted].map(|sample| {
            let run = alone(&sample.args(line)).succeeds();
            let room = sample.room.path().to_string_lossy().into_owned();
            let told = run.stdout.replace(&room, "");
            // Each run has an id of its own.
            match told.split_once("\"run\":") {
                Some((before, after)) => before.to_owned() + &after[18..],
                None => told,
            }
        });
        assert_eq!(shown[0], shown[1], "{line}");
    }
}

#[test]
fn convert_takes_any_format_and_leaves_what_is_there_already() {
    let sample = Sample::in_memory();
    alone(&sample.args("convert @full --to ckpt --dst @mixed")).succeeds();
    std::fs::remove_file(sample.path("mixed/shardloom.json")).expect("a manifest");
    let copy = |from: &str, to: &str| {
        std::fs::copy(sample.path(from), sample.path(to)).expect("it can be copied");
    };
    // What a file is, its name doesn't tell.
    copy("full/model.safetensors", "mixed/other.ckpt");
    copy("mixed/model.ckpt", "mixed/third.safetensors");
    for processes in [1, 4] {
        for (to, made) in [
            ("safetensors", ["model.safetensors", "third.safetensors"]),
            ("ckpt", ["other.ckpt", "other.ckpt"]),
        ] {
            let line = format!("convert @mixed --to {to} --dst @out --overwrite");
            run(&sample, processes, &line).succeeds();
            let files = fixtures::listing(&sample.path("out")).into_iter();
            let files: Vec<_> = files.filter(|f| !f.ends_with("shardloom.json")).collect();
            let mut made: Vec<_> = made.iter().map(std::path::PathBuf::from).collect();
            made.dedup();
            assert_eq!(files, made, "--to {to}");
            std::fs::remove_dir_all(sample.path("out")).expect("it can be removed");
        }
    }
    copy("mixed/model.ckpt", "plain-name");
    alone(&sample.args("convert @plain-name --to safetensors --dst @named")).succeeds();
    let read = tensors::read(&sample.path("named/plain-name.safetensors")).expect("a file");
    assert_eq!(read.tensors, sample.whole);
    for line in ["@full", "@full/model.safetensors", "@src"] {
        let line = format!("convert {line} --to safetensors --dst @out");
        let run = run(&sample, 1, &line);
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(error_line(&run).contains("safetensors already"), "{run:#?}");
        nothing_written(&sample);
    }
    std::fs::create_dir(sample.path("twice")).expect("a directory");
    copy("mixed/model.ckpt", "twice/a.ckpt");
    copy("mixed/model.ckpt", "twice/a.safetensors");
    let run = alone(&sample.args("convert @twice --to safetensors --dst @out"));
    assert!(error_line(&run).contains("a.safetensors too"), "{run:#?}");
}

/// Another form of the weights lies beside those that the index lists, as at Hugging Face: it stays beside them.
#[test]
fn what_no_index_lists_is_converted_and_stays_in_none() {
    let sample = Sample::in_memory();
    alone(&sample.args("unify --src @full --dst @multi --max-shard-size 300")).succeeds();
    let other: tensors::Tensors = sample.whole.clone().into_iter().take(2).collect();
    tensors::write(&sample.path("multi/consolidated.safetensors"), &other);
    for processes in [1, 4] {
        let line = "convert @multi --to ckpt --dst @out --overwrite";
        run(&sample, processes, line).succeeds();
        assert!(sample.path("out/consolidated.ckpt").exists());
        let line = "unify --src @out --dst @again --overwrite";
        let run = run(&sample, processes, line).succeeds();
        assert!(
            run.stdout.contains("consolidated.ckpt is left aside"),
            "{run:#?}"
        );
        assert_eq!(sample.weights_in("again"), sample.whole);
    }
}

// proves P107
#[test]
fn odd_headers_are_named() {
    let sample = Sample::in_memory();
    let tensor = r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
    let write = |header: &str, data: &[u8]| {
        tensors::write_raw(&sample.path("odd/model.safetensors"), header, data);
    };
    write(&format!("{{\"__metadata__\":null,{tensor}}}"), &[1, 2]);
    alone(&sample.args("unify --src @odd --dst @null")).succeeds();
    for (header, data, says) in [
        (
            format!("{{\"__metadata__\":{{\"step\":7}},{tensor}}}"),
            &[1u8, 2][..],
            "the value of 'step' is 7",
        ),
        (
            format!("{{{tensor}}}"),
            &[1, 2, 3, 4, 5][..],
            "3 bytes too many",
        ),
    ] {
        write(&header, data);
        for processes in [1, 4] {
            let run = run(&sample, processes, "unify --src @odd --dst @out");
            assert_eq!(run.status.code(), Some(1), "{run:#?}");
            assert!(error_line(&run).contains(says), "{says}: {run:#?}");
            nothing_written(&sample);
        }
    }
}

/// A file of full weights that carries MindSpore's CRC of its names and tensors.
fn with_crc(path: &Path, tensors: &tensors::Tensors) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut sum = crc32fast::Hasher::new();
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend(&tensor.data);
        sum.update(name.as_bytes());
        sum.update(&tensor.data);
        let entry = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()],
        });
        header.insert(name.clone(), entry);
    }
    let marks = serde_json::json!({"format": "ms", "crc_num": sum.finalize().to_string()});
    header.insert("__metadata__".into(), marks);
    let header = serde_json::to_vec(&header).expect("JSON");
    let length = (header.len() as u64).to_le_bytes();
    tensors::write_bytes(path, &[&length[..], &header, &data].concat());
}

/// What a file says of its own bytes counts in every command, though there is no manifest and nobody asks.
#[test]
fn a_checksum_of_a_files_own_counts() {
    let sample = Sample::new();
    alone(&sample.args("convert @full --to ckpt --crc --dst @ckpt")).succeeds();
    std::fs::remove_file(sample.path("ckpt/shardloom.json")).expect("removed");
    with_crc(&sample.path("st/model.safetensors"), &sample.whole);
    for (name, file, to) in [
        ("ckpt", "model.ckpt", "safetensors"),
        ("st", "model.safetensors", "ckpt"),
    ] {
        let path = sample.path(name).join(file);
        let sound = format!("split --src @{name} --dst @{name}-cut --dst-strategy @two.ckpt");
        alone(&sample.args(&sound)).succeeds();
        let mut bytes = std::fs::read(&path).expect("it is read");
        // The last tensor's last bytes.
        let at = bytes.len() - if name == "ckpt" { 40 } else { 3 };
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        for (processes, line) in [
            (
                1,
                format!("split --src @{name} --dst @out --dst-strategy @two.ckpt"),
            ),
            (4, format!("unify --src @{name} --dst @out --memory 64KiB")),
            (
                1,
                format!("convert @{name} --to {to} --dst @out --verify all"),
            ),
            (2, format!("diff @{name} @full")),
        ] {
            let run = command::on(processes, &sample.args(&format!("{line} --json")));
            let told = object(&run);
            assert_eq!(told["error"]["kind"], "corrupt", "{line}: {run:#?}");
            let named = told["error"]["file"].as_str().unwrap_or_default();
            assert!(named.contains(file), "{line}: {told}");
            assert!(!sample.path("out").exists());
        }
        alone(&sample.args(&format!(
            "unify --src @{name} --dst @{name}-none --verify none"
        )))
        .succeeds();
    }
}
