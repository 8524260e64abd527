//! A small checkpoint of our own making, for tests whose layouts no recorded case has.

use super::oracle::{Layout, Strategy, to_protobuf};
use super::tensors::{self, Tensor, Tensors};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory with `src/rank_*` on four ranks, `four.ckpt`, `two.ckpt` and `full/model.safetensors`.
pub(crate) struct Sample {
    pub(crate) room: TempDir,
    pub(crate) whole: Tensors,
    pub(crate) four: Strategy,
    pub(crate) two: Strategy,
}

impl Sample {
    pub(crate) fn new() -> Sample {
        Sample::new_in(&std::env::temp_dir())
    }

    /// The same in memory where there is a place for it: flushing costs nothing there.
    pub(crate) fn in_memory() -> Sample {
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        Sample::new_in(if memory.is_dir() { memory } else { &temporary })
    }

    fn new_in(place: &Path) -> Sample {
        let whole = Tensors::from([
            ("b".to_owned(), Tensor::counting("F32", &[16], 3)),
            ("w1".to_owned(), Tensor::counting("BF16", &[8, 16], 50)),
            ("w2".to_owned(), Tensor::counting("F32", &[16, 8], 90)),
        ]);
        let four = Strategy::of(&[
            ("b", layout(&[2, 2], &[-1])),
            ("w1", layout(&[2, 2], &[1, 0])),
            ("w2", layout(&[4], &[0, -1])),
        ]);
        let two = Strategy::of(&[
            ("b", layout(&[2], &[0])),
            ("w1", layout(&[2], &[0, -1])),
            ("w2", layout(&[2], &[-1, 0])),
        ]);
        Sample::of_in(place, whole, four, two)
    }

    /// Copies a file to a place whose directories may not be there yet.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        std::fs::copy(self.path(from), to).expect("copied");
    }

    /// These tensors, cut by `four`, and `two` as another strategy.
    pub(crate) fn of(whole: Tensors, four: Strategy, two: Strategy) -> Sample {
        Sample::of_in(&std::env::temp_dir(), whole, four, two)
    }

    fn of_in(place: &Path, whole: Tensors, four: Strategy, two: Strategy) -> Sample {
        let room = tempfile::tempdir_in(place).expect("a temporary directory");
        let path = room.path();
        tensors::write(&path.join("full/model.safetensors"), &whole);
        for rank in 0..four.ranks() {
            let shards = four.cut(&whole, rank).expect("it can be cut");
            tensors::write(
                &path.join(format!("src/rank_{rank}/net.safetensors")),
                &shards,
            );
        }
        tensors::write_bytes(&path.join("four.ckpt"), &to_protobuf(&four));
        tensors::write_bytes(&path.join("two.ckpt"), &to_protobuf(&two));
        Sample {
            room,
            whole,
            four,
            two,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// All tensors of the safetensors files in `directory`.
    pub(crate) fn weights_in(&self, directory: &str) -> Tensors {
        let directory = self.path(directory);
        let files = super::fixtures::listing(&directory).into_iter();
        let weights = files.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
        let read = |file| {
            tensors::read(&directory.join(file))
                .expect("readable")
                .tensors
        };
        weights.flat_map(read).collect()
    }

    /// A command line in which every `@name` is a path inside the sample.
    pub(crate) fn args(&self, line: &str) -> Vec<String> {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let word = |word: &str| word.strip_prefix('@').map_or_else(|| word.to_owned(), path);
        line.split_whitespace().map(word).collect()
    }

    /// Whether `directory` has exactly what `strategy` makes of `whole`.
    pub(crate) fn check(&self, directory: &str, strategy: &Strategy, whole: &Tensors) {
        for rank in 0..strategy.ranks() {
            let directory = self.path(directory).join(format!("rank_{rank}"));
            let entries = std::fs::read_dir(&directory).expect("a rank's directory");
            let files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
            assert_eq!(files.len(), 1, "{files:?}");
            let found = tensors::read(&files[0]).expect("a safetensors file");
            let expected = strategy.cut(whole, rank).expect("it can be cut");
            let compared = tensors::compare(&expected, &found.tensors);
            compared.unwrap_or_else(|error| unreachable!("rank {rank}: {error}"));
        }
    }
}

/// A layout with at most one axis a dimension.
pub(crate) fn layout(mesh: &[usize], map: &[i64]) -> Layout {
    Layout {
        mesh: mesh.to_vec(),
        map: map.iter().map(|axis| vec![*axis]).collect(),
        ..Layout::default()
    }
}

/// All files below `directory` with their bytes, to see that nothing changed.
pub(crate) fn image(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = super::fixtures::listing(directory).into_iter();
    files
        .map(|file| {
            let bytes = std::fs::read(directory.join(&file)).expect("a file");
            (file, bytes)
        })
        .collect()
}

/// A lock that this process would have.
pub(crate) fn own_lock() -> String {
    let text = |path: &str| std::fs::read_to_string(path).expect("the system tells");
    let stat = text("/proc/self/stat");
    let fields = stat.rsplit(')').next().expect("a name").split_whitespace();
    let numbers = std::fs::read_link("/proc/self/ns/pid").expect("a link");
    format!(
        r#"{{"token":"00ff","command":"reshard","host":"here","process":{},"since":1,"born":{},"boot":"{}","numbers":"{}"}}"#,
        std::process::id(),
        fields.skip(19).step_by(100).next().expect("its birth"),
        text("/proc/sys/kernel/random/boot_id").trim(),
        numbers.display()
    )
}
