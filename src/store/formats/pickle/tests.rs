//! Pickles, honest and hostile.

use super::machine::read;
use super::value::{Node, Pickle};
use crate::fault::Kind;
use std::path::{Path, PathBuf};

/// A small generator of numbers, the same in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or_default() % below.max(1)
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// The pickles of the recorded checkpoints: those of directories, and those inside archives.
fn recorded() -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/worlds"),
        &mut paths,
    );
    paths.sort();
    let mut pickles = Vec::new();
    for path in paths
        .iter()
        .filter(|path| !path.to_string_lossy().contains("hostile"))
    {
        let bytes = std::fs::read(path).unwrap();
        if path.ends_with(".metadata") {
            pickles.push(bytes);
        } else if bytes.starts_with(b"PK") {
            let mut begins = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"data.pkl"));
            let begin = begins.next().unwrap();
            let begin = begin
                + bytes[begin..]
                    .iter()
                    .position(|byte| *byte == 0x80)
                    .unwrap();
            let end = bytes[begin..]
                .windows(4)
                .position(|four| four == b"PK\x07\x08")
                .unwrap();
            pickles.push(bytes[begin..begin + end].to_vec());
        }
    }
    assert!(pickles.len() > 6, "{}", pickles.len());
    pickles
}

/// All names in it are allowed, and it has no more values than its bytes can make.
fn is_sound(pickle: &Pickle<'_>) {
    assert!(pickle.nodes.len() <= 2 * pickle.bytes.len() + 8);
    let named = (0u32..)
        .zip(&pickle.nodes)
        .filter(|(_, node)| matches!(node, Node::Global(..)));
    for (value, _) in named {
        let (module, name) = pickle.names(value).unwrap();
        assert!(super::allowed::is_allowed(module, name), "{module}.{name}");
    }
}

#[test]
fn recorded_pickles_are_read() {
    for bytes in recorded() {
        is_sound(&read(&bytes).unwrap());
    }
}

/// A pickle that calls `module.name` with a text, in the old spelling and in the new one.
fn call(module: &str, name: &str) -> [Vec<u8>; 2] {
    let mut old = b"\x80\x02c".to_vec();
    old.extend(format!("{module}\n{name}\nX\x04\0\0\0true").bytes());
    old.extend(b"\x85R.");
    let text = |text: &str| {
        let mut bytes = vec![0x8c, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.bytes());
        bytes.push(0x94);
        bytes
    };
    let mut new = b"\x80\x04".to_vec();
    new.extend(text(module));
    new.extend(text(name));
    new.extend(b"\x93\x8c\x04true\x85R.");
    [old, new]
}

/// As protocol 2 spells them.
#[test]
fn sets_and_the_like_are_carried_under_their_old_names_too() {
    for name in ["set", "complex", "bytearray"] {
        for module in ["builtins", "__builtin__"] {
            let mut bytes = b"\x80\x02c".to_vec();
            bytes.extend(format!("{module}\n{name}\n)R.").bytes());
            let read = read(&bytes);
            assert!(read.is_ok(), "{module}.{name}: {read:?}");
        }
    }
}

// proves P103
#[test]
fn whoever_is_not_on_the_list_is_refused_by_name() {
    let modules = [
        "os",
        "posix",
        "nt",
        "subprocess",
        "builtins",
        "__builtin__",
        "sys",
        "importlib",
        "runpy",
        "shutil",
        "socket",
        "pickle",
        "_pickle",
        "ctypes",
        "code",
        "pty",
        "webbrowser",
        "operator",
        "functools",
        "torch.hub",
        "torch.storage",
        "torch._utils",
        "torch",
        "torch.distributed.checkpoint.metadata",
        "numpy.testing._private.utils",
        "megatron.training",
        "deepspeed.ops",
        "collections",
    ];
    let names = [
        "system",
        "popen",
        "eval",
        "exec",
        "getattr",
        "__import__",
        "open",
        "run",
        "call",
        "loads",
        "load",
        "_load_from_bytes",
        "attrgetter",
        "partial",
        "rmtree",
        "import_module",
        "spawn",
        "globals",
        "compile",
    ];
    let mut refused = 0;
    for module in modules {
        for name in names {
            for bytes in call(module, name) {
                let fault = read(&bytes).unwrap_err();
                assert_eq!(fault.kind, Kind::Unsupported, "{module}.{name}");
                assert!(
                    fault.message.contains(&format!("{module}.{name}")),
                    "{fault:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused >= 1000, "{refused}");
}

/// Ways to bring what `call` makes (without its header and end) into a pickle that begins as an honest one.
fn wrapped(call: &[u8]) -> Vec<Vec<u8>> {
    let of = |before: &[u8], after: &[u8]| [b"\x80\x04", before, call, after, b"."].concat();
    let object = b"ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81";
    vec![
        of(b"(", b"t"),
        of(b"](", b"e"),
        of(b"}X\x01\0\0\0w", b"s"),
        of(b"}", b"Ns"),
        of(object, b"b"),
        of(b"ctorch\nSize\n", b"\x85R"),
        of(b"X\x07\0\0\0storage", b"\x86Q"),
        of(b"", b"q\x050h\x05"),
        of(b"N0", b"0N"),
        of(b"\x95\xff\0\0\0\0\0\0\0", b""),
        of(&[b']'; 300], &[b'a'; 300]),
        // What one call gives is what the next one calls.
        of(b"ctorch\nSize\n)R", b"\x86"),
        of(b"(lp0\n", b"a"),
    ]
}

#[test]
fn whoever_is_not_on_the_list_is_refused_however_it_is_wrapped() {
    let targets = [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "__import__"),
        ("subprocess", "Popen"),
        ("runpy", "run_path"),
        ("torch.serialization", "load"),
        ("torch", "load"),
        ("collections", "namedtuple"),
        ("numpy", "load"),
        ("pathlib", "os"),
        ("argparse", "FileType"),
        ("deepspeed.runtime.engine", "os"),
        ("megatron.core.utils", "importlib"),
    ];
    let mut refused = 0;
    for (module, name) in targets {
        for bytes in call(module, name) {
            for bytes in wrapped(&bytes[2..bytes.len() - 1]) {
                let fault = read(&bytes).unwrap_err();
                assert!(
                    matches!(fault.kind, Kind::Unsupported | Kind::Corrupt),
                    "{fault:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 400, "{refused}");
}

#[test]
fn what_only_looks_like_an_allowed_name_is_refused() {
    for (module, name) in [
        ("torch", "Size.__class__"),
        ("torch", "_utils.os.system"),
        ("torch ", "Size"),
        ("argparse", "os"),
        ("megatron.x;os", "System"),
        ("", ""),
    ] {
        for bytes in call(module, name) {
            assert!(read(&bytes).is_err(), "{module}.{name}");
        }
    }
}

#[test]
fn bombs_are_refused_or_harmless() {
    let begun = |rest: &[u8]| [b"\x80\x04", rest].concat();
    // What claims more than there is.
    for bytes in [
        &b"\x8d\0\0\0\0\0\0\0\x10"[..],
        b"X\xff\xff\xff\x7fabc.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\xff.",
        b"j\xff\xff\xff\xff.",
        b"Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.",
        b"t.",
        b"((.",
        b"NN.",
        b"N\x85\x86.",
        b"(Nu.",
        b"}(Nu.",
        b"]Nb.",
        b"NNR.",
        b"",
        b"\x8c\x01\xff.",
        b"i__main__\nx\n.",
        b"o.",
        b"\x82\x01.",
        b"\x92.",
        b"Pid\n.",
        b"I1\n.",
        b"\xff",
    ] {
        assert!(read(&begun(bytes)).is_err(), "{bytes:?}");
    }
    for protocol in [0u8, 1, 6, 255] {
        assert!(read(&[0x80, protocol, b'N', b'.']).is_err());
    }
}

#[test]
fn depth_costs_no_stack_and_doubling_no_memory() {
    let deep = [
        b"\x80\x04".to_vec(),
        vec![b']'; 250_000],
        vec![b'a'; 249_999],
        b".".to_vec(),
    ]
    .concat();
    is_sound(&read(&deep).unwrap());
    let tuples = [b"\x80\x04N".to_vec(), vec![0x85; 250_000], b".".to_vec()].concat();
    is_sound(&read(&tuples).unwrap());
    let mut doubled = b"\x80\x04N".to_vec();
    for _ in 0..60 {
        doubled.extend(b"\x94\x94h\0\x86");
        let last = u8::try_from(doubled.len() % 2).unwrap();
        doubled.extend([b'q', last, b'h', last, 0x86]);
    }
    doubled.push(b'.');
    is_sound(&read(&doubled).unwrap());
    // A list that holds itself.
    is_sound(&read(b"\x80\x04]q\0h\0a.").unwrap());
}

#[test]
fn damaged_pickles_name_nobody_else() {
    let pickles = recorded();
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let (mut read_all, mut refused) = (0, 0);
    for round in 0..2000 {
        let mut bytes = pickles[round % pickles.len()].clone();
        for _ in 0..=draw.next(4) {
            let at = draw.next(bytes.len());
            match draw.next(5) {
                0 => bytes[at] = u8::try_from(draw.next(256)).unwrap(),
                1 => bytes[at] ^= 1 << draw.next(8),
                2 => bytes.truncate(at),
                3 => {
                    let other = &pickles[draw.next(pickles.len())];
                    let from = draw.next(other.len());
                    let part = &other[from..other.len().min(from + draw.next(64))];
                    bytes.splice(at..at, part.iter().copied());
                }
                _ => {
                    let end = bytes.len().min(at + draw.next(32));
                    bytes.drain(at..end);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        match read(&bytes) {
            Ok(pickle) => {
                is_sound(&pickle);
                read_all += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused >= 1000 && read_all > 0,
        "{refused} refused, {read_all} read"
    );
}
