//! What a process holds of the weights and of Adam's moments; how it starts, learns and is saved.

use crate::Result;
use crate::model::{Weight, Weights};
use crate::parallel::Mesh;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use mpi::collective::SystemOperation;
use mpi::traits::CommunicatorCollectives;
use safetensors::SafeTensors;
use shardloom::checkpoint::monitor::StateTensor;
use shardloom::exchange::{Topology, World, barrier};
use shardloom::source::latest::latest;
use shardloom::source::survey::survey;
use shardloom::strategy::derive::{self, Rule, derive};
use shardloom::tensor::dtype::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LEARNING_RATE: f32 = 2e-3;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;

/// Beginnings of the names of what belongs to a weight: itself, and its two moments.
const KINDS: [&str; 3] = ["", "adam_m.", "adam_v."];

/// What this process holds of a weight: a part, and the moments of that part.
struct Parameter {
    full: Weight,
    /// Of the part that the processes of a column share.
    gathered: Vec<usize>,
    /// Of the part that is this process's own.
    shape: Vec<u64>,
    /// Whether the processes of a column cut it once more.
    sharded: bool,
    /// Elements of the weight and of its moments, as `KINDS`.
    values: [Vec<f32>; 3],
}

/// All of it, by the weights' names.
pub(crate) struct Training {
    parameters: BTreeMap<String, Parameter>,
    mesh: String,
    sharded: bool,
}

/// A number that looks drawn from `seed`.
pub(crate) fn scramble(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The full weight before the first step: the same in every layout.
fn initial(name: &str, shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    if shape.len() == 1 {
        return Ok(Tensor::from_vec(vec![1_f32; count], shape, &Device::Cpu)?);
    }
    let seed = name
        .bytes()
        .fold(0, |seed, byte| scramble(seed ^ u64::from(byte)));
    let uniform = |index: usize| -> Result<f32> {
        let drawn = scramble(seed ^ scramble(u64::try_from(index)?)) >> 48;
        Ok(f32::from(u16::try_from(drawn)?) / 65536.0 - 0.5)
    };
    let width = f32::from(u16::try_from(shape[1])?);
    let scale = 2.0 / width.sqrt();
    let values: Result<Vec<f32>> = (0..count)
        .map(|index| Ok(uniform(index)? * scale))
        .collect();
    Ok(Tensor::from_vec(values?, shape, &Device::Cpu)?)
}

/// Piece `index` of `count` equal pieces along `dimension`.
fn piece(tensor: &Tensor, dimension: usize, count: u32, index: u32) -> Result<Tensor> {
    let length = tensor.dim(dimension)? / usize::try_from(count)?;
    Ok(tensor.narrow(dimension, usize::try_from(index)? * length, length)?)
}

impl Training {
    /// The state before the first step.
    pub(crate) fn new(
        mesh: &Mesh,
        weights: BTreeMap<String, Weight>,
        sharded: bool,
    ) -> Result<Training> {
        let mut parameters = BTreeMap::new();
        for (name, full) in weights {
            let mut part = initial(&name, &full.shape)?;
            if let Some(dimension) = full.cut {
                part = piece(&part, dimension, mesh.tp_size, mesh.tp_index)?;
            }
            let gathered = part.dims().to_vec();
            let divides = gathered[0].is_multiple_of(usize::try_from(mesh.dp_size)?);
            let sharded = sharded && divides;
            if sharded {
                part = piece(&part, 0, mesh.dp_size, mesh.dp_index)?;
            }
            let values = part.flatten_all()?.to_vec1::<f32>()?;
            let zeros = vec![0.0; values.len()];
            let shape: std::result::Result<_, _> =
                part.dims().iter().map(|dim| u64::try_from(*dim)).collect();
            let parameter = Parameter {
                full,
                gathered,
                shape: shape?,
                sharded,
                values: [values, zeros.clone(), zeros],
            };
            parameters.insert(name, parameter);
        }
        Ok(Training {
            parameters,
            mesh: format!("dp={},tp={}", mesh.dp_size, mesh.tp_size),
            sharded,
        })
    }

    /// Writes `DIR/strategy.ckpt`, which says how the state is cut; gives its path. Collective.
    pub(crate) fn write_strategy(&self, world: &World, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("strategy.ckpt");
        if world.process() == 0 {
            let mut tensors = Vec::new();
            let mut rules = Vec::new();
            for (name, parameter) in &self.parameters {
                let shape = &parameter.full.shape;
                let cuts: Vec<&str> = (0..shape.len())
                    .map(|dimension| {
                        if parameter.full.cut == Some(dimension) {
                            "tp"
                        } else {
                            "-"
                        }
                    })
                    .collect();
                for kind in KINDS {
                    let shape: std::result::Result<Vec<u64>, _> =
                        shape.iter().map(|dim| u64::try_from(*dim)).collect();
                    tensors.push((format!("{kind}{name}"), shape?));
                    rules.push(Rule::parse(&format!("{kind}{name}={}", cuts.join(",")))?);
                }
            }
            let shard = self.sharded.then_some(-1);
            let derived = derive(&derive::Mesh::parse(&self.mesh)?, &rules, shard, &tensors)?;
            std::fs::create_dir_all(directory)?;
            std::fs::write(&path, derived.bytes)?;
        }
        barrier(world)?;
        Ok(path)
    }

    /// The weights for a step, gathered from the processes of a column. Collective.
    pub(crate) fn gather(&self, mesh: &Mesh) -> Result<Weights> {
        let mut weights = Weights::new();
        for (name, parameter) in &self.parameters {
            let mine = &parameter.values[0];
            let values = if parameter.sharded {
                let mut all = vec![0_f32; mine.len() * usize::try_from(mesh.dp_size)?];
                mesh.dp.all_gather_into(&mine[..], &mut all[..]);
                all
            } else {
                mine.clone()
            };
            let tensor = Tensor::from_vec(values, &parameter.gathered[..], &Device::Cpu)?;
            weights.insert(name.clone(), Var::from_tensor(&tensor)?);
        }
        Ok(weights)
    }

    /// Averages the gradients over the processes of a column and lets Adam change this process's
    /// part. Collective.
    pub(crate) fn learn(
        &mut self,
        mesh: &Mesh,
        weights: &Weights,
        gradients: &GradStore,
        step: u64,
    ) -> Result<()> {
        let steps = i32::try_from(step)?;
        let correction = [1.0 - BETA1.powi(steps), 1.0 - BETA2.powi(steps)];
        let share = 1.0 / f32::from(u16::try_from(mesh.dp_size)?);
        for (name, parameter) in &mut self.parameters {
            let gradient = weights.get(name).and_then(|weight| gradients.get(weight));
            let gradient = gradient.ok_or_else(|| format!("{name} has no gradient"))?;
            let all = gradient.flatten_all()?.to_vec1::<f32>()?;
            let [weight, first, second] = &mut parameter.values;
            let mut gradient = vec![0_f32; weight.len()];
            if parameter.sharded {
                mesh.dp.reduce_scatter_block_into(
                    &all[..],
                    &mut gradient[..],
                    SystemOperation::sum(),
                );
            } else {
                mesh.dp
                    .all_reduce_into(&all[..], &mut gradient[..], SystemOperation::sum());
            }
            for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                let g = g * share;
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                *w -= LEARNING_RATE * (*m / correction[0]) / ((*v / correction[1]).sqrt() + 1e-8);
            }
        }
        Ok(())
    }

    /// The state's bytes, as they are saved: a weight after the other with its moments.
    pub(crate) fn bytes(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for (name, parameter) in &self.parameters {
            for (kind, values) in KINDS.iter().zip(&parameter.values) {
                let bytes = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                all.push((format!("{kind}{name}"), bytes));
            }
        }
        all
    }

    /// What [`Training::bytes`] gave, described for the monitor.
    pub(crate) fn tensors<'a>(&'a self, bytes: &'a [(String, Vec<u8>)]) -> Vec<StateTensor<'a>> {
        let parameters = self
            .parameters
            .values()
            .flat_map(|parameter| [parameter; KINDS.len()]);
        let described = bytes
            .iter()
            .zip(parameters)
            .map(|((name, bytes), parameter)| {
                let tensor = StateTensor::new(name, Dtype::F32, &parameter.shape, bytes);
                if name.starts_with("adam_") {
                    tensor.of_optimizer()
                } else {
                    tensor
                }
            });
        described.collect()
    }

    /// Takes this process's state from the rank directories in `from`: the newest checkpoint there that
    /// all ranks have, or the one file that each has. Gives the steps it had done. Collective.
    pub(crate) fn load(&mut self, world: &World, from: &Path) -> Result<u64> {
        let topology = Topology::discover(world)?;
        let found = survey(world, &topology, from, Some(world.size()), true)?;
        let room = format!("rank_{}", world.process());
        let path = if found.checkpoints.is_empty() {
            let mut files = std::fs::read_dir(found.directory.join(&room))?;
            files.next().ok_or("a rank's directory is empty")??.path()
        } else {
            let mut files = latest(&found)?.files.iter();
            let file = files.find(|file| file.starts_with(&format!("{room}/")));
            found.directory.join(file.ok_or("this rank has no file")?)
        };
        let bytes = std::fs::read(&path)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        for (name, parameter) in &mut self.parameters {
            for (kind, values) in KINDS.iter().zip(&mut parameter.values) {
                let view = tensors.tensor(&format!("{kind}{name}"))?;
                let shape: std::result::Result<Vec<u64>, _> =
                    view.shape().iter().map(|dim| u64::try_from(*dim)).collect();
                if shape? != parameter.shape {
                    let path = path.display();
                    return Err(format!(
                        "{path}: {name} is {:?}, not {:?}",
                        view.shape(),
                        parameter.shape
                    )
                    .into());
                }
                let (words, _) = view.data().as_chunks::<4>();
                *values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            }
        }
        // MindSpore has written both widths.
        let steps = tensors.tensor("step_num")?;
        Ok(match steps.data().as_chunks::<8>() {
            ([wide], []) => u64::from_le_bytes(*wide),
            _ => u64::from(u32::from_le_bytes(steps.data().try_into()?)),
        })
    }
}
