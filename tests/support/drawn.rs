//! Checkpoints, layouts and worlds, drawn at random.

use super::pretend::{Held, Made, Pretended};
use crate::support::oracle;
use crate::support::tensors::{Tensor, Tensors};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Strategy as Draw;
use shardloom::layout::{Layout, OptimizerShard};
use shardloom::plan::reach::ExchangeMode;
use shardloom::store::Format;
use shardloom::strategy::{StageLayout, Strategy};
use shardloom::tensor::dtype::Dtype;
use shardloom::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of a tensor that is in no strategy.
pub(crate) const PRIVATE: &str = "step";

/// A strategy's outline: ranks of a stage, and for each tensor its layout in each stage.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) ranks_per_stage: u64,
    pub(crate) stages: u32,
    pub(crate) layouts: Vec<Vec<Option<oracle::Layout>>>,
}

/// A tensor of a case.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
}

/// A checkpoint in layout `a`, two other layouts, and a world to move it in.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) c: Side,
    pub(crate) tensors: Vec<Drawn>,
    pub(crate) private: bool,
    pub(crate) remove_redundancy: bool,
    pub(crate) format: Format,
    pub(crate) world: Pretended,
}

pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).expect("a small number")
}

/// All ways to write `ranks` as up to three factors, ones too.
fn meshes(ranks: u64) -> Vec<Vec<usize>> {
    let divisors: Vec<u64> = (1..=ranks).filter(|d| ranks.is_multiple_of(*d)).collect();
    let mut meshes = vec![vec![index(ranks)]];
    for first in &divisors {
        meshes.push(vec![index(*first), index(ranks / first)]);
        for second in divisors
            .iter()
            .filter(|d| (ranks / first).is_multiple_of(**d))
        {
            let third = ranks / first / second;
            meshes.push(vec![index(*first), index(*second), index(third)]);
        }
    }
    meshes
}

/// A layout of a tensor of so many dimensions on so many ranks.
pub(crate) fn layout(ranks: u64, dimensions: usize) -> impl Draw<Value = oracle::Layout> {
    let mesh = prop::sample::select(meshes(ranks));
    (
        mesh,
        vec(0..=dimensions, 3),
        any::<bool>(),
        0usize..6,
        1i64..4,
    )
        .prop_map(move |(mesh, places, reverse, optimizer, step)| {
            let mut map: Vec<Vec<i64>> = vec![Vec::new(); dimensions];
            for (axis, place) in (0i64..).zip(&places[..mesh.len()]) {
                if let Some(cuts) = map.get_mut(*place) {
                    cuts.push(axis);
                }
            }
            if reverse {
                map.iter_mut().for_each(|cuts| cuts.reverse());
            }
            for cuts in map.iter_mut().filter(|cuts| cuts.is_empty()) {
                cuts.push(-1);
            }
            let mut layout = oracle::Layout {
                mesh,
                map,
                ..oracle::Layout::default()
            };
            shard_optimizer(&mut layout, optimizer, step);
            layout
        })
}

/// Adds an optimizer shard of the `choice`-th size that fits, or none.
fn shard_optimizer(layout: &mut oracle::Layout, choice: usize, step: i64) {
    let axes = layout.mesh.len();
    let used = |axis: usize| {
        let number = i64::try_from(axes - 1 - axis).expect("a small number");
        layout.map.iter().flatten().any(|used| *used == number)
    };
    let free: Vec<usize> = (0..axes)
        .filter(|a| !used(*a) && layout.mesh[*a] > 1)
        .collect();
    if layout.map.is_empty() || free.is_empty() || choice < 3 {
        return;
    }
    let replicas: usize = free.iter().map(|axis| layout.mesh[*axis]).product();
    let divisors: Vec<usize> = (1..=replicas)
        .filter(|d| replicas.is_multiple_of(*d))
        .collect();
    let size = divisors[choice % divisors.len()];
    layout.optimizer_size = if choice == 5 {
        -1
    } else {
        i64::try_from(size).expect("a small number")
    };
    layout.optimizer_step = match free[..] {
        [only] => {
            let right: usize = layout.mesh[only + 1..].iter().product();
            i64::try_from(right).expect("a small number")
        }
        _ => step,
    };
}

/// The program's own form of a layout.
pub(crate) fn ours(layout: &oracle::Layout) -> Layout {
    let mesh: Vec<u64> = layout.mesh.iter().map(|size| *size as u64).collect();
    let optimizer = OptimizerShard {
        step: layout.optimizer_step,
        size: layout.optimizer_size,
    };
    Layout::new(&mesh, &layout.map, Some(optimizer)).expect("a layout that fits its mesh")
}

const DTYPES: [Dtype; 12] = [
    Dtype::F32,
    Dtype::BF16,
    Dtype::U8,
    Dtype::F64,
    Dtype::C64,
    Dtype::Bool,
    Dtype::I16,
    Dtype::F8_E4M3,
    Dtype::I64,
    Dtype::F16,
    Dtype::F4,
    Dtype::F6_E2M3,
];

/// Everything of a tensor that is drawn before the layouts meet.
#[derive(Clone, Debug)]
struct Sketch {
    dtype: Dtype,
    units: Vec<u64>,
    /// For each side the layouts by stage, and the stages that have the tensor, as bits.
    sides: Vec<(Vec<oracle::Layout>, u32)>,
}

fn sketch(outlines: [(u64, u32); 3]) -> impl Draw<Value = Sketch> {
    let dimensions =
        prop_oneof![1 => Just(0usize), 3 => Just(1usize), 5 => Just(2usize), 2 => Just(3usize)];
    dimensions.prop_flat_map(move |dimensions| {
        let side = |(ranks, stages): (u64, u32)| {
            let layouts = vec(layout(ranks, dimensions), stages as usize);
            (layouts, any::<u32>())
        };
        let sides = (side(outlines[0]), side(outlines[1]), side(outlines[2]));
        let unit = prop_oneof![12 => 1u64..4, 1 => Just(0u64)];
        (0..DTYPES.len(), vec(unit, dimensions), sides).prop_map(|(dtype, units, (a, b, c))| {
            Sketch {
                dtype: DTYPES[dtype],
                units,
                sides: vec![a, b, c],
            }
        })
    })
}

/// The least multiple that all layouts cut evenly, for each dimension.
fn evenly(layouts: &[&oracle::Layout], dimensions: usize) -> Vec<u64> {
    let mut units = vec![1u64; dimensions];
    for layout in layouts {
        for (unit, parts) in units.iter_mut().zip(ours(layout).parts()) {
            *unit = lcm(*unit, parts);
        }
    }
    units
}

pub(crate) fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

pub(crate) fn world() -> BoxedStrategy<Pretended> {
    let seen = prop_oneof![
        Just(vec![u32::MAX]),
        Just(vec![0]),
        vec(0u32..8, 1..6),
        Just(vec![1])
    ];
    let mode = prop_oneof![3 => Just(ExchangeMode::Auto), 1 => Just(ExchangeMode::Collective)];
    (1u32..7, 1u32..4, any::<bool>(), seen, any::<bool>(), mode)
        .prop_map(
            |(processes, nodes, in_turn, seen, shared_destination, mode)| Pretended {
                processes,
                nodes: nodes.min(processes),
                in_turn,
                seen,
                shared_destination,
                mode,
            },
        )
        .boxed()
}

/// A checkpoint to move; one of some hundred is large enough for windows.
pub(crate) fn case() -> impl Draw<Value = Case> {
    let outline = || {
        let ranks = prop::sample::select(vec![1u64, 2, 3, 4, 6, 8, 12]);
        let stages = prop_oneof![3 => Just(1u32), 1 => Just(2u32), 1 => Just(3u32)];
        (ranks, stages)
    };
    let choices = (any::<bool>(), any::<bool>(), any::<bool>(), world());
    let large = prop_oneof![400 => Just(false), 1 => Just(true)];
    ([outline(), outline(), outline()], large).prop_flat_map(move |(outlines, large)| {
        let sketches = vec(sketch(outlines), 1..5);
        (sketches, choices.clone())
            .prop_map(move |(sketches, choices)| join(outlines, &sketches, large, choices))
    })
}

type Choices = (bool, bool, bool, Pretended);

fn join(outlines: [(u64, u32); 3], sketches: &[Sketch], large: bool, choices: Choices) -> Case {
    let (private, remove_redundancy, ckpt, world) = choices;
    let side = |number: usize| {
        let (ranks_per_stage, stages) = outlines[number];
        let layouts = sketches.iter().enumerate().map(|(tensor, sketch)| {
            let (layouts, mask) = &sketch.sides[number];
            let has = |stage: usize| {
                // The first tensor is shared by all stages, so that none is empty.
                tensor == 0 || stage == tensor % layouts.len() || mask & (1 << stage) != 0
            };
            let layouts = layouts.iter().enumerate();
            layouts.map(|(s, l)| has(s).then(|| l.clone())).collect()
        });
        Side {
            ranks_per_stage,
            stages,
            layouts: layouts.collect(),
        }
    };
    let sides = [side(0), side(1), side(2)];
    let mut tensors = Vec::new();
    for (number, sketch) in sketches.iter().enumerate() {
        let layouts: Vec<&oracle::Layout> = sides
            .iter()
            .flat_map(|side| side.layouts[number].iter().flatten())
            .collect();
        let dimensions = sketch.units.len();
        let mut shape = evenly(&layouts, dimensions);
        let dtype = match sketch.dtype {
            packed if packed.bits() < 8 && (dimensions == 0 || ckpt) => Dtype::F32,
            dtype => dtype,
        };
        if dtype.bits() < 8
            && let Some(last) = shape.last_mut()
        {
            *last *= 4;
        }
        let least: u64 = shape.iter().product();
        for (size, unit) in shape.iter_mut().zip(&sketch.units) {
            *size *= if least > 4_000 { unit.min(&1) } else { unit };
        }
        if large
            && number == 0
            && let Some(last) = shape.last_mut()
        {
            *last *= (600_000 / (least * u64::from(dtype.bits()) / 8)).max(1);
        }
        tensors.push(Drawn { dtype, shape });
    }
    let [a, b, c] = sides;
    Case {
        a,
        b,
        c,
        tensors,
        private,
        // A ckpt file can't be without tensors, as that of a rank that keeps none would be.
        remove_redundancy: remove_redundancy && (private || !ckpt),
        format: if ckpt {
            Format::CKPT
        } else {
            Format::SAFETENSORS
        },
        world,
    }
}

impl Side {
    pub(crate) fn ranks(&self) -> u32 {
        u32::try_from(self.ranks_per_stage).expect("a small number") * self.stages
    }
}

pub(crate) fn name(number: usize) -> String {
    format!("layers.{number}.weight")
}

/// The same tensor in whole bytes: what the oracle cuts.
pub(crate) fn in_bytes(dtype: Dtype, shape: &Shape, data: Vec<u8>) -> Tensor {
    let mut shape: Vec<usize> = shape.0.iter().map(|size| index(*size)).collect();
    let packed = dtype.bits() < 8;
    if packed && let Some(last) = shape.last_mut() {
        *last = *last * dtype.bits() as usize / 8;
    }
    let dtype = if packed { Dtype::U8 } else { dtype };
    Tensor {
        dtype: dtype.safetensors_name().to_owned(),
        shape,
        data,
    }
}

/// Bytes in which no short stretch occurs twice.
pub(crate) fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Case {
    /// All tensors, whole.
    pub(crate) fn whole(&self) -> Tensors {
        let tensors = self.tensors.iter().enumerate().map(|(number, drawn)| {
            let shape = Shape(drawn.shape.clone());
            let bytes = index(shape.bytes(drawn.dtype).expect("whole bytes"));
            (
                name(number),
                in_bytes(drawn.dtype, &shape, noise(number, bytes)),
            )
        });
        tensors.collect()
    }

    pub(crate) fn oracle(&self, side: &Side) -> oracle::Strategy {
        let mut items = Vec::new();
        for stage in 0..side.stages as usize {
            for (number, layouts) in side.layouts.iter().enumerate() {
                if let Some(layout) = &layouts[stage] {
                    items.push((stage, name(number), layout.clone()));
                }
            }
        }
        oracle::Strategy { items }
    }

    pub(crate) fn strategy(&self, side: &Side) -> Strategy {
        let items = self.oracle(side).items.into_iter();
        let layouts = items.map(|(stage, name, layout)| {
            let stage = u32::try_from(stage).expect("a small number");
            (Arc::from(name), StageLayout::new(stage, ours(&layout)))
        });
        let ranks = u32::try_from(side.ranks_per_stage).expect("a small number");
        Strategy::from_layouts(side.stages, ranks, layouts.collect::<Vec<_>>()).expect("a strategy")
    }

    /// The files of layout `a`, cut by the oracle.
    pub(crate) fn source(&self) -> Held {
        let (whole, strategy) = (self.whole(), self.oracle(&self.a));
        let mut ranks = BTreeMap::new();
        for rank in 0..strategy.ranks() {
            let shards = strategy.cut(&whole, rank).expect("it can be cut");
            let mut made: Vec<Made> = shards.into_iter().map(|s| self.made(s)).collect();
            if self.private {
                made.push(Made {
                    name: PRIVATE.into(),
                    dtype: Dtype::I32,
                    shape: Shape(vec![]),
                    data: noise(1000 + rank, 4),
                });
            }
            ranks.insert(u32::try_from(rank).expect("a rank"), made);
        }
        Held::of(Format::SAFETENSORS, &ranks)
    }

    fn made(&self, (text, tensor): (String, Tensor)) -> Made {
        let number = (0..self.tensors.len()).find(|number| name(*number) == text);
        let dtype = self.tensors[number.expect("one of ours")].dtype;
        let mut shape: Vec<u64> = tensor.shape.iter().map(|size| *size as u64).collect();
        if dtype.bits() < 8
            && let Some(last) = shape.last_mut()
        {
            *last = *last * 8 / u64::from(dtype.bits());
        }
        Made {
            name: text.into(),
            dtype,
            shape: Shape(shape),
            data: tensor.data,
        }
    }
}
