//! The directories of a virtual cluster's nodes.

use super::case::{Case, Doing, MODELS};
use super::oracle::{Layout, Strategy, to_protobuf};
use super::tensors::{self, Tensor, Tensors};
use crate::destination::Writing;
use crate::exchange::World;
use crate::host::cluster::ill::Ills;
use crate::host::cluster::{End, Setting, run};
use crate::job::{self, Goal, Job, Write};
use crate::plan::arrange::{FULL_FILE_BYTES_MAX, Files, Naming, RankName};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Paths inside a directory, and the bytes of each file.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// The same, of bytes that stay.
pub(super) type Kept = BTreeMap<PathBuf, &'static [u8]>;

/// A checkpoint, in the layouts that jobs are about.
pub(super) struct Model {
    pub(super) whole: Tensors,
    two: Strategy,
    /// What each rank has in layout `two`.
    pub(super) shards: Vec<Tensors>,
    four: Strategy,
    /// Files of the source in layout `four`, and of full weights, with manifests.
    source: Image,
    full: Image,
}

fn layout(mesh: &[usize], map: &[i64]) -> Layout {
    Layout {
        mesh: mesh.to_vec(),
        map: map.iter().map(|axis| vec![*axis]).collect(),
        ..Layout::default()
    }
}

fn sketch(number: usize) -> (Tensors, Strategy, Strategy) {
    let counting = |dtype, shape: &[usize], start| Tensor::counting(dtype, shape, start);
    let mut whole = Tensors::new();
    let (mut four, mut two) = (Vec::new(), Vec::new());
    let mut add = |name: &str, tensor, from, to| {
        whole.insert(name.to_owned(), tensor);
        four.push((0, name.to_owned(), from));
        two.push((0, name.to_owned(), to));
    };
    match number {
        0 => {
            add(
                "b",
                counting("F32", &[16], 3),
                layout(&[2, 2], &[-1]),
                layout(&[2], &[0]),
            );
            add(
                "w1",
                counting("BF16", &[8, 16], 50),
                layout(&[2, 2], &[1, 0]),
                layout(&[2], &[0, -1]),
            );
            add(
                "w2",
                counting("F32", &[16, 8], 90),
                layout(&[4], &[0, -1]),
                layout(&[2], &[-1, 0]),
            );
        }
        1 => {
            for layer in 0..4 {
                let name = format!("layers.{layer}.w");
                let tensor = counting("F32", &[12, 12], layer * 7);
                add(
                    &name,
                    tensor,
                    layout(&[3], &[-1, 0]),
                    layout(&[2, 2], &[1, 0]),
                );
            }
            add(
                "norm",
                counting("BF16", &[12], 5),
                layout(&[3], &[-1]),
                layout(&[2, 2], &[-1]),
            );
        }
        // Rounds and windows.
        _ => {
            for layer in 0..3 {
                let name = format!("layers.{layer}.w");
                let tensor = counting("F32", &[512, 256], layer * 13);
                add(
                    &name,
                    tensor,
                    layout(&[2], &[0, -1]),
                    layout(&[3], &[-1, -1]),
                );
            }
            add(
                "rows",
                counting("F32", &[1536, 128], 77),
                layout(&[2], &[-1, 0]),
                layout(&[3], &[0, -1]),
            );
        }
    }
    (whole, Strategy { items: four }, Strategy { items: two })
}

/// All models, made once.
pub(super) fn models() -> &'static [Model] {
    static MADE: OnceLock<Vec<Model>> = OnceLock::new();
    MADE.get_or_init(|| (0..MODELS).map(Model::make).collect())
}

impl Model {
    fn make(number: usize) -> Model {
        let (whole, four, two) = sketch(number);
        let room = room();
        let at = |path: &str| room.path().join(path);
        for rank in 0..four.ranks() {
            let shards = four.cut(&whole, rank).expect("it can be cut");
            tensors::write(&at(&format!("raw/rank_{rank}/net.safetensors")), &shards);
        }
        tensors::write_bytes(&at("four.ckpt"), &to_protobuf(&four));
        // The program's own results have manifests.
        let write = |place: &str, strategy: Option<&str>, leftovers, files| {
            let mut writing = Writing::into(place);
            writing.strategy = strategy.map(Into::into);
            let reading = Reading::checkpoint("raw".into(), Some("four.ckpt".into()), None);
            let mut job = Job::new(
                "reshard",
                reading,
                Goal::Write(Box::new(Write::new(leftovers, files, writing))),
            );
            job.moving.threads = 1;
            alone(room.path(), &job);
        };
        let ranks = Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy: false,
        };
        write(
            "src",
            Some("four.ckpt"),
            Leftovers::Reshard(Unmatched::Fail),
            ranks,
        );
        let full = Files::Full {
            naming: Naming::Hf,
            file_bytes_max: FULL_FILE_BYTES_MAX,
        };
        write("full", None, Leftovers::Unify(Unmatched::Fail), full);
        Model {
            source: image(&at("src")),
            full: image(&at("full")),
            shards: (0..two.ranks())
                .map(|rank| two.cut(&whole, rank).expect("it can be cut"))
                .collect(),
            whole,
            two,
            four,
        }
    }
}

/// Runs a job on one process, undisturbed.
fn alone(root: &Path, job: &Job) {
    let setting = Setting {
        seed: 0,
        nodes: vec![0],
        alone: None,
        ills: Ills::Listed(Vec::new()),
        calm: true,
        bug: None,
        schedule: None,
    };
    let run = run(
        &setting,
        |_| go_to(root),
        || {
            let world = World::start()?;
            let outcome = job::run(&world, job, &mut |_, _| {});
            world.finish()?;
            outcome
        },
    );
    let done = matches!(&run.ends[..], [End::Done(Ok(_))]);
    assert!(done && run.findings.is_empty(), "{run:?}");
}

/// Makes `root` the directory of this thread, and of those that it starts.
pub(super) fn go_to(root: &Path) {
    own_directory();
    rustix::process::chdir(root).expect("the root of a node");
}

/// Gives this thread, and those that it starts, a current directory of their own.
#[allow(unsafe_code)]
fn own_directory() {
    unsafe extern "C" {
        /// Of the C library: what this thread no longer shares with the others.
        fn unshare(what: std::ffi::c_int) -> std::ffi::c_int;
    }
    /// Root, current directory and mask of permissions.
    const CLONE_FS: std::ffi::c_int = 0x200;
    // SAFETY: nothing but those is unshared.
    let failed = unsafe { unshare(CLONE_FS) };
    assert_eq!(failed, 0, "no directory of its own");
}

/// A directory in memory, where there is a place for it.
pub(super) fn room() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("shardloom-virtual")
        .tempdir_in(place)
        .expect("a directory")
}

/// All files below `directory`; none if nothing stands there.
pub(super) fn image(directory: &Path) -> Image {
    let read = |inside: PathBuf| {
        let bytes = std::fs::read(directory.join(&inside)).expect("a file");
        (inside, bytes)
    };
    listed(directory).into_iter().map(read).collect()
}

/// The paths of all files below `directory`; none if nothing stands there.
pub(super) fn listed(directory: &Path) -> BTreeSet<PathBuf> {
    let mut listed = BTreeSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        let Ok(entries) = std::fs::read_dir(directory.join(&inside)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.expect("an entry");
            let path = inside.join(entry.file_name());
            if entry.file_type().expect("its type").is_dir() {
                left.push(path);
            } else {
                listed.insert(path);
            }
        }
    }
    listed
}

/// Whether the file at `path` has just these bytes.
pub(super) fn has(path: &Path, bytes: &[u8]) -> bool {
    let mut file = File::open(path).expect("a file");
    let mut part = [0; 64 << 10];
    let mut left = bytes;
    loop {
        let read = file.read(&mut part).expect("its bytes");
        if read == 0 {
            return left.is_empty();
        }
        match left.split_at_checked(read) {
            Some((these, rest)) if part[..read] == *these => left = rest,
            _ => return false,
        }
    }
}

/// Whether just these files stand below `directory`.
pub(super) fn holds(directory: &Path, files: &Kept) -> bool {
    listed(directory).iter().eq(files.keys())
        && files
            .iter()
            .all(|(path, bytes)| has(&directory.join(path), bytes))
}

/// The nodes of a case, each with its root.
pub(super) struct Nodes {
    _room: TempDir,
    pub(super) roots: Vec<PathBuf>,
    /// What stood there at first: of each root, the sources.
    pub(super) before: Vec<Kept>,
    flipped: Option<(PathBuf, usize)>,
}

/// What stands where a job is to replace it.
pub(super) fn old() -> Kept {
    let files = [
        ("rank_0/a.safetensors", "one"),
        ("rank_1/a.safetensors", "two"),
    ];
    files
        .map(|(path, text)| (PathBuf::from(path), text.as_bytes()))
        .into()
}

impl Nodes {
    pub(super) fn make(case: &Case) -> Nodes {
        let room = room();
        let model = &models()[case.model];
        let count = if case.own_disks {
            case.nodes as usize
        } else {
            1
        };
        let roots: Vec<PathBuf> = (0..count)
            .map(|node| room.path().join(format!("{node}")))
            .collect();
        let mut before = Vec::new();
        for (node, root) in roots.iter().enumerate() {
            std::fs::create_dir(root).expect("a root");
            let ranks = model.four.ranks();
            let here = |path: &Path| {
                let rank = path
                    .iter()
                    .next()
                    .and_then(|name| name.to_str()?.strip_prefix("rank_")?.parse().ok());
                rank.is_none_or(|rank: usize| rank * count / ranks == node)
            };
            let (place, files) = match case.doing {
                Doing::Split => ("full", &model.full),
                _ => ("src", &model.source),
            };
            let files = files
                .iter()
                .filter(|(path, _)| case.doing == Doing::Split || here(path));
            let sources: Kept = files
                .map(|(path, bytes)| (Path::new(place).join(path), &bytes[..]))
                .collect();
            write(root, &sources);
            before.push(sources);
            tensors::write_bytes(&root.join("four.ckpt"), &to_protobuf(&model.four));
            tensors::write_bytes(&root.join("two.ckpt"), &to_protobuf(&model.two));
            if case.doing == Doing::Overwrite {
                write(&root.join("out"), &old());
            }
        }
        let mut nodes = Nodes {
            _room: room,
            roots,
            before,
            flipped: None,
        };
        if let Some(rot) = case.rot {
            nodes.rot(rot);
        }
        nodes
    }

    /// The root of a node.
    pub(super) fn root(&self, node: u32) -> &Path {
        &self.roots[(node as usize).min(self.roots.len() - 1)]
    }

    /// Flips a bit of a tensor in a source file.
    fn rot(&mut self, (file, at): (u64, u64)) {
        let weights = |path: &&PathBuf| {
            path.extension()
                .is_some_and(|ending| ending == "safetensors")
        };
        let all: Vec<PathBuf> = self
            .roots
            .iter()
            .zip(&self.before)
            .flat_map(|(root, image)| image.keys().filter(weights).map(|path| root.join(path)))
            .collect();
        let path = &all[file as usize % all.len()];
        let bytes = std::fs::read(path).expect("a source file");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize + 8;
        let at = header + at as usize % (bytes.len() - header);
        self.flipped = Some((path.clone(), at));
        self.flip();
    }

    fn flip(&self) {
        if let Some((path, at)) = &self.flipped {
            let Ok(mut bytes) = std::fs::read(path) else {
                return;
            };
            bytes[*at] ^= 16;
            std::fs::write(path, bytes).expect("it is written");
        }
    }

    /// Puts back what was flipped.
    pub(super) fn mend(&mut self) {
        self.flip();
        self.flipped = None;
    }

    /// Whether the sources are as they were, but for what was flipped.
    pub(super) fn keep_sources(&self) -> bool {
        self.flip();
        let mut all = self.roots.iter().zip(&self.before);
        let kept = all.all(|(root, before)| {
            ["src", "full"]
                .iter()
                .all(|part| holds(&root.join(part), &inside(before, part)))
        });
        self.flip();
        kept
    }
}

/// Those of `files` that stand in directory `part`.
pub(super) fn inside(files: &Kept, part: &str) -> Kept {
    let inside = |(path, bytes): (&PathBuf, &&'static [u8])| {
        Some((path.strip_prefix(part).ok()?.to_path_buf(), *bytes))
    };
    files.iter().filter_map(inside).collect()
}

fn write(directory: &Path, files: &Kept) {
    for (path, bytes) in files {
        tensors::write_bytes(&directory.join(path), bytes);
    }
}
