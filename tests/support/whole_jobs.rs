//! Whole jobs on two small rank files that an input has, and what must hold of whatever they make: tried with the kept
//! inputs by `tests/fuzz.rs`, and with what leads to new places of the program by `tests/fuzz/`.
//!
//! An input is which job (a byte), the length of the first file (two bytes, little end first), of the second one, both
//! files, and a strategy, if it isn't the usual one.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use shardloom::World;
use shardloom::fault::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Whether an input was taken; what is wrong with that.
pub(crate) type Tried = std::result::Result<bool, String>;

/// Type, shape and bytes.
type Tensor = (String, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Tensor>;

/// What an input has.
struct Input<'a> {
    job: u8,
    files: [&'a [u8]; 2],
    strategy: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(bytes: &'a [u8]) -> Option<Input<'a>> {
        let (job, rest) = bytes.split_first()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let (first, second) = (u16::from_le_bytes(*first), u16::from_le_bytes(*second));
        let (one, rest) = rest.split_at_checked(first.into())?;
        let (other, strategy) = rest.split_at_checked(second.into())?;
        Some(Input {
            job: *job,
            files: [one, other],
            strategy,
        })
    }
}

/// A strategy of `ranks` ranks: rows of `a.weight` are cut, columns of `c.weight`, and each has all of `b.weight`.
fn strategy(ranks: usize) -> String {
    let tensor = |map: &str, shape: &str| {
        format!(
            "{{\"dev_matrix\":[{ranks}],\"field\":0,\"opt_weight_shard_size\":0,\"opt_weight_shard_step\":0,\
             \"tensor_map\":{map},\"tensor_shape\":{shape}}}"
        )
    };
    let (a, b, c) = (
        tensor("[0,-1]", "[4,2]"),
        tensor("[-1]", "[2]"),
        tensor("[-1,0]", "[2,4]"),
    );
    format!(
        "{{\"current_stage\":1,\"parallel_layout_item\":{{\"a.weight\":{a},\"b.weight\":{b},\"c.weight\":{c}}},\
         \"parallel_strategy_item\":{{\"shardloom_stage0\":{{\"parallel_strategy\":[],\"stage\":0}}}}}}"
    )
}

/// Each job of two good files, or one, by the usual strategy and by one that is given.
pub(crate) fn usual() -> Vec<Vec<u8>> {
    let file = |part: u8, shapes: [&[usize]; 3]| {
        let names = ["a.weight", "b.weight", "c.weight"];
        let tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = names
            .into_iter()
            .zip(shapes)
            .map(|(name, shape)| {
                let count = u8::try_from(4 * shape.iter().product::<usize>()).expect("few");
                let first = if name == "b.weight" { 0 } else { part };
                let bytes = (0..count).map(|byte| byte ^ first).collect();
                (name, shape.to_vec(), bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("a tensor"))
        });
        safetensors::serialize(views, None).expect("a file")
    };
    let halves: [&[usize]; 3] = [&[2, 2], &[2], &[2, 2]];
    let [one, other] = [64, 128].map(|part| file(part, halves));
    let whole = file(32, [&[4, 2], &[2], &[2, 4]]);
    let jobs = (0..4).flat_map(|job| {
        let files = match job {
            3 => [&whole[..], &[]],
            _ => [&one[..], &other[..]],
        };
        ["", &strategy(2)].map(|strategy| {
            let [first, second] = files.map(|file| u16::try_from(file.len()).expect("short"));
            let head = [&[job][..], &first.to_le_bytes(), &second.to_le_bytes()];
            let parts = [&head.concat()[..], files[0], files[1], strategy.as_bytes()];
            parts.concat()
        })
    });
    jobs.collect()
}

fn tensors(bytes: &[u8]) -> std::result::Result<Tensors, String> {
    let read = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensors = read.tensors().into_iter().map(|(name, view)| {
        let dtype = format!("{:?}", view.dtype());
        (name, (dtype, view.shape().to_vec(), view.data().to_vec()))
    });
    Ok(tensors.collect())
}

/// All tensors of the files below `place`, by file.
fn below(place: &Path) -> std::result::Result<BTreeMap<PathBuf, Tensors>, String> {
    let (mut open, mut found) = (vec![place.to_path_buf()], BTreeMap::new());
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "safetensors") {
                let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
                let read =
                    tensors(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
                found.insert(path, read);
            }
        }
    }
    Ok(found)
}

/// Columns `from..to` of the rows of a tensor of two dimensions.
fn columns((dtype, shape, bytes): &Tensor, from: usize, to: usize) -> Tensor {
    let [rows, all] = shape[..] else {
        panic!("{shape:?}")
    };
    let width = bytes.len() / rows / all;
    let row = |row: usize| &bytes[(row * all + from) * width..(row * all + to) * width];
    let bytes = (0..rows).flat_map(|at| row(at).iter().copied());
    (dtype.clone(), vec![rows, to - from], bytes.collect())
}

/// Rows `from..to`.
fn rows((dtype, shape, bytes): &Tensor, from: usize, to: usize) -> Tensor {
    let width = bytes.len() / shape[0];
    let part = bytes[from * width..to * width].to_vec();
    (dtype.clone(), vec![to - from, shape[1]], part)
}

/// What two ranks' files make, of what the strategy knows: none where they can't make it.
fn joined(files: &[Tensors; 2]) -> std::result::Result<Tensors, String> {
    let mut made = Tensors::new();
    for (name, shape) in [("a.weight", [2, 2]), ("c.weight", [2, 2])] {
        let (one, other) = match (files[0].get(name), files[1].get(name)) {
            (None, None) => continue,
            (Some(one), Some(other)) => (one, other),
            _ => return Err(format!("{name} is there in one file alone")),
        };
        if one.0 != other.0 || one.1 != shape || other.1 != shape {
            return Err(format!("{name} is {:?} and {:?}", one.1, other.1));
        }
        let (dtype, _, first) = one;
        let tensor = if name == "a.weight" {
            let bytes = [&first[..], &other.2[..]].concat();
            (dtype.clone(), vec![4, 2], bytes)
        } else {
            let half = first.len() / 2;
            let halves = [
                &first[..half],
                &other.2[..half],
                &first[half..],
                &other.2[half..],
            ];
            (dtype.clone(), vec![2, 4], halves.concat())
        };
        made.insert(name.to_owned(), tensor);
    }
    let own = files.iter().find_map(|file| file.get("b.weight"));
    if let Some(own) = own {
        if own.1 != [2] {
            return Err(format!("b.weight is {:?}", own.1));
        }
        made.insert("b.weight".to_owned(), own.clone());
    }
    Ok(made)
}

/// What `rank` of `ranks` has of these.
fn cut(whole: &Tensors, rank: usize, ranks: usize) -> Tensors {
    let part = |(name, tensor): (&String, &Tensor)| {
        let share = 4 / ranks;
        let part = match &**name {
            "a.weight" => rows(tensor, rank * share, (rank + 1) * share),
            "c.weight" => columns(tensor, rank * share, (rank + 1) * share),
            _ => tensor.clone(),
        };
        (name.clone(), part)
    };
    whole.iter().map(part).collect()
}

/// Tries the job of an input in a directory that is empty, and is afterwards.
pub(crate) fn job(world: &World, room: &Path, bytes: &[u8]) -> Tried {
    let Some(input) = Input::read(bytes) else {
        return Ok(false);
    };
    let tried = Trial { world, room, input };
    let told = tried.run();
    let cleared = std::fs::read_dir(room).expect("a directory");
    for entry in cleared {
        let path = entry.expect("an entry").path();
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.expect("removed");
    }
    told
}

struct Trial<'a> {
    world: &'a World,
    room: &'a Path,
    input: Input<'a>,
}

impl Trial<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.room.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn run(&self) -> Tried {
        let (
            Input {
                job,
                files,
                strategy: given,
            },
            split,
        ) = (&self.input, self.input.job % 4 == 3);
        let (two, four) = (strategy(2), strategy(4));
        let usual = given.is_empty();
        let two = self.write("two.json", if usual { two.as_bytes() } else { given });
        let four = self.write("four.json", four.as_bytes());
        let sources: Vec<(PathBuf, &[u8])> = match split {
            true => vec![(self.write("src/model.safetensors", files[0]), files[0])],
            false => (0..2)
                .map(|rank| {
                    let name = format!("src/rank_{rank}/net.safetensors");
                    (self.write(&name, files[rank]), files[rank])
                })
                .collect(),
        };
        let (src, dst) = (self.at("src"), self.at("dst"));
        let task = match job % 4 {
            0 => shardloom::unify(&src, &dst).source_strategy(&two),
            1 => shardloom::reshard(&src, &dst)
                .source_strategy(&two)
                .strategy(&four),
            2 => shardloom::reshard(&src, &dst)
                .source_strategy(&two)
                .strategy(&two),
            _ => shardloom::split(&src, &dst).strategy(&two),
        };
        let ended = task.threads(1).run(self.world);
        for (path, bytes) in &sources {
            if std::fs::read(path).ok().as_deref() != Some(*bytes) {
                return Err(format!("{} has changed", path.display()));
            }
        }
        self.nothing_beside(ended.is_ok())?;
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(fault) if fault.kind == Kind::Internal => return Err(fault.to_string()),
            Err(_) => return Ok(false),
        };
        if outcome.tensors == 0 {
            return Err("a job of no tensors".to_owned());
        }
        let verified = shardloom::verify(self.world, &dst).map_err(|fault| fault.to_string())?;
        if !verified.ok {
            return Err("what it made doesn't pass its own verification".to_owned());
        }
        let made = below(&dst)?;
        if usual {
            self.as_due(&made, split)?;
        }
        self.nothing_made_up(&made)?;
        Ok(true)
    }

    /// Nothing stands beside source and result.
    fn nothing_beside(&self, made: bool) -> std::result::Result<(), String> {
        let there = std::fs::read_dir(self.room).expect("a directory");
        let names: BTreeSet<String> = there
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let mut due: BTreeSet<String> = ["src", "two.json", "four.json"].map(str::to_owned).into();
        if made {
            due.insert("dst".to_owned());
        }
        match names == due {
            true => Ok(()),
            false => Err(format!("there are {names:?}")),
        }
    }

    /// Each of the tensors that the usual strategies know is where it is due, to the bit.
    fn as_due(
        &self,
        made: &BTreeMap<PathBuf, Tensors>,
        split: bool,
    ) -> std::result::Result<(), String> {
        let mut files: [Tensors; 2] = Default::default();
        for (file, bytes) in files.iter_mut().zip(self.input.files) {
            match tensors(bytes) {
                Ok(read) => *file = read,
                Err(_) if split => {}
                Err(error) => return Err(format!("taken, the reference says: {error}")),
            }
        }
        let known = |(name, _): &(&String, &Tensor)| {
            ["a.weight", "b.weight", "c.weight"].contains(&name.as_str())
        };
        let whole = match split {
            true => {
                let known = files[0].iter().filter(known);
                known
                    .map(|(name, tensor)| (name.clone(), tensor.clone()))
                    .collect()
            }
            false => joined(&files).map_err(|error| format!("taken, though {error}"))?,
        };
        let ranks = match self.input.job % 4 {
            0 => None,
            1 => Some(4),
            _ => Some(2),
        };
        let parts: Vec<(PathBuf, Tensors)> = match ranks {
            None => {
                let all = made.values().flatten();
                let all = all.map(|(name, tensor)| (name.clone(), tensor.clone()));
                let all: Tensors = all.collect();
                let found = all.iter().filter(known);
                let found: Tensors = found
                    .map(|(name, tensor)| (name.clone(), tensor.clone()))
                    .collect();
                return same(&found, &whole);
            }
            Some(ranks) => (0..ranks)
                .map(|rank| {
                    (
                        self.at(&format!("dst/rank_{rank}/net.safetensors")),
                        cut(&whole, rank, ranks),
                    )
                })
                .collect(),
        };
        for (path, due) in parts {
            let path = match made.contains_key(&path) {
                true => path,
                false => {
                    let directory = path.parent().expect("a directory");
                    let mut own = made.keys().filter(|path| path.parent() == Some(directory));
                    own.next()
                        .ok_or(format!("{} lacks", path.display()))?
                        .clone()
                }
            };
            let found = made[&path].iter().filter(known);
            let found: Tensors = found
                .map(|(name, tensor)| (name.clone(), tensor.clone()))
                .collect();
            same(&found, &due)?;
        }
        Ok(())
    }

    /// Each of the source's tensors is in the result, and no other.
    fn nothing_made_up(
        &self,
        made: &BTreeMap<PathBuf, Tensors>,
    ) -> std::result::Result<(), String> {
        let mut all: BTreeSet<String> = BTreeSet::new();
        let count = if self.input.job % 4 == 3 { 1 } else { 2 };
        for bytes in &self.input.files[..count] {
            all.extend(
                tensors(bytes)
                    .map_err(|error| format!("taken, the reference says: {error}"))?
                    .into_keys(),
            );
        }
        let found: BTreeSet<String> = made
            .values()
            .flat_map(|file| file.keys().cloned())
            .collect();
        match all == found {
            true => Ok(()),
            false => Err(format!("{all:?} have become {found:?}")),
        }
    }
}

fn same(found: &Tensors, due: &Tensors) -> std::result::Result<(), String> {
    match found == due {
        true => Ok(()),
        false => Err(format!("{found:?} is there, and {due:?} is due")),
    }
}
