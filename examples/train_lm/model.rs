//! A transformer over bytes: pre-norm blocks of causal attention and a feed-forward part.
//!
//! Weights are `[out, in]`. Those that make heads, the inner features or the logits are cut by rows;
//! those that read heads or inner features by columns, and their results are summed.

use crate::Result;
use crate::form::Form;
use crate::parallel::{Mesh, given, maximum, sum};
use candle_core::{D, DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// Bytes that a sequence has.
pub(crate) const WINDOW: usize = 32;

const VOCABULARY: usize = 256;
const WIDTH: usize = 64;
const HEADS: usize = 4;
const INNER: usize = 128;
const BLOCKS: usize = 2;

/// Weights by name, as one process has them for a step.
pub(crate) type Weights = BTreeMap<String, Var>;

/// A full weight: its shape, and which dimension the processes of a row cut.
pub(crate) struct Weight {
    pub(crate) shape: Vec<usize>,
    pub(crate) cut: Option<usize>,
}

/// The model as one process computes it.
pub(crate) struct Model {
    form: Form,
    heads: usize,
    /// First of the logits that this process makes.
    first_logit: usize,
    logits: usize,
    /// 0 where a position may look, very small where not.
    mask: Tensor,
}

impl Model {
    pub(crate) fn new(mesh: &Mesh, form: Form) -> Result<Model> {
        let (parts, part) = (
            usize::try_from(mesh.tp_size)?,
            usize::try_from(mesh.tp_index)?,
        );
        if !HEADS.is_multiple_of(parts) {
            return Err(format!("--tp {parts} doesn't divide {HEADS} heads").into());
        }
        let logits = VOCABULARY / parts;
        let look = |from: usize, to: usize| if to <= from { 0_f32 } else { -1e9 };
        let mask: Vec<f32> = (0..WINDOW)
            .flat_map(|from| (0..WINDOW).map(move |to| look(from, to)))
            .collect();
        Ok(Model {
            form,
            heads: HEADS / parts,
            first_logit: part * logits,
            logits,
            mask: Tensor::from_vec(mask, (1, 1, WINDOW, WINDOW), &Device::Cpu)?,
        })
    }

    /// All weights, in full.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Weight> {
        let mut weights = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], cut: Option<usize>| {
            let shape = shape.to_vec();
            weights.insert(name, Weight { shape, cut });
        };
        let form = self.form;
        add(form.name("embedding"), &[VOCABULARY, WIDTH], None);
        add(form.name("position"), &[WINDOW, WIDTH], None);
        for block in 0..BLOCKS {
            let name = |part: &str| form.of_block(block, part);
            add(name("attention_norm"), &[WIDTH], None);
            match form {
                Form::Separate => {
                    for part in ["wq", "wk", "wv"] {
                        add(name(&format!("attention.{part}")), &[WIDTH, WIDTH], Some(0));
                    }
                    for part in ["w1", "w3"] {
                        add(
                            name(&format!("feed_forward.{part}")),
                            &[INNER, WIDTH],
                            Some(0),
                        );
                    }
                }
                Form::Fused => {
                    add(name("attention.w_qkv"), &[3 * WIDTH, WIDTH], Some(0));
                    add(
                        name("feed_forward.w_gate_hidden"),
                        &[2 * INNER, WIDTH],
                        Some(0),
                    );
                }
            }
            add(name("attention.wo"), &[WIDTH, WIDTH], Some(1));
            add(name("ffn_norm"), &[WIDTH], None);
            add(name("feed_forward.w2"), &[WIDTH, INNER], Some(1));
        }
        add(form.name("norm"), &[WIDTH], None);
        add(form.name("head"), &[VOCABULARY, WIDTH], Some(0));
        weights
    }

    /// Mean cross entropy of the next byte, in nats. Collective over the processes of a row.
    pub(crate) fn loss(
        &self,
        weights: &Weights,
        inputs: &Tensor,
        targets: &Tensor,
    ) -> Result<Tensor> {
        let weight = |name: String| -> Result<&Tensor> {
            let found = weights.get(&name).map(Var::as_tensor);
            found.ok_or_else(|| format!("there is no {name}").into())
        };
        let top = |part: &str| weight(self.form.name(part));
        let (sequences, window) = inputs.dims2()?;
        let embedded = top("embedding")?.embedding(&inputs.flatten_all()?)?;
        let mut x = embedded
            .reshape((sequences, window, WIDTH))?
            .broadcast_add(top("position")?)?;
        for block in 0..BLOCKS {
            let part = |part: &str| weight(self.form.of_block(block, part));
            let normed = given(&norm(&x, part("attention_norm")?)?)?;
            let names = ["attention.wq", "attention.wk", "attention.wv"];
            let [q, k, v] = match self.form {
                Form::Separate => each(names, |name| Ok(times(&normed, part(name)?)?))?,
                Form::Fused => parts(&times(&normed, part("attention.w_qkv")?)?, self.heads)?,
            };
            let attended = self.attend(&q, &k, &v)?;
            x = (x + sum(&times(&attended, part("attention.wo")?)?)?)?;
            let normed = given(&norm(&x, part("ffn_norm")?)?)?;
            let names = ["feed_forward.w1", "feed_forward.w3"];
            let [gate, up] = match self.form {
                Form::Separate => each(names, |name| Ok(times(&normed, part(name)?)?))?,
                Form::Fused => {
                    let both = times(&normed, part("feed_forward.w_gate_hidden")?)?;
                    let pairs = both.dim(D::Minus1)? / 2;
                    parts(&both, pairs)?
                }
            };
            let inner = (gate.silu()? * up)?;
            x = (x + sum(&times(&inner, part("feed_forward.w2")?)?)?)?;
        }
        let x = given(&norm(&x, top("norm")?)?)?;
        self.cross_entropy(&times(&x, top("head")?)?, targets)
    }

    /// Attention of this process's heads over `[sequences, window, features]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (sequences, window, features) = q.dims3()?;
        let split = |x: &Tensor| -> candle_core::Result<Tensor> {
            let shape = (sequences, window, self.heads, features / self.heads);
            x.reshape(shape)?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (split(q)?, split(k)?, split(v)?);
        let scale = 1.0 / (f64::from(u32::try_from(features / self.heads)?)).sqrt();
        let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?.broadcast_add(&self.mask)?;
        let scores = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
            .exp()?;
        let scores = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        let joined = scores.matmul(&v)?.transpose(1, 2)?.contiguous()?;
        Ok(joined.reshape((sequences, window, features))?)
    }

    /// From this process's part of the logits: the sum over all of them is an all-reduce.
    fn cross_entropy(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let logits = logits.flatten(0, 1)?;
        let largest = maximum(&logits.max_keepdim(D::Minus1)?)?;
        let logits = logits.broadcast_sub(&largest)?;
        let total = sum(&logits.exp()?.sum_keepdim(D::Minus1)?)?.log()?;
        let first = u32::try_from(self.first_logit)?;
        let mine = Tensor::arange(first, first + u32::try_from(self.logits)?, &Device::Cpu)?;
        let right = targets.flatten_all()?.unsqueeze(1)?.broadcast_eq(&mine)?;
        let right = (logits * right.to_dtype(DType::F32)?)?;
        let right = sum(&right.sum_keepdim(D::Minus1)?)?;
        Ok((total - right)?.mean_all()?)
    }
}

/// What `made` makes of each.
fn each<const N: usize>(
    names: [&str; N],
    made: impl Fn(&str) -> Result<Tensor>,
) -> Result<[Tensor; N]> {
    let all: Result<Vec<Tensor>> = names.into_iter().map(made).collect();
    all?.try_into()
        .map_err(|_| "another number of tensors".into())
}

/// The tensors of which `x` has a run each in turn, `groups` times.
fn parts<const N: usize>(x: &Tensor, groups: usize) -> Result<[Tensor; N]> {
    let (sequences, window, features) = x.dims3()?;
    let x = x.reshape((sequences, window, groups, N, features / groups / N))?;
    let part = |part: usize| -> Result<Tensor> {
        let part = x.narrow(3, part, 1)?.contiguous()?;
        Ok(part.reshape((sequences, window, features / N))?)
    };
    let all: Result<Vec<Tensor>> = (0..N).map(part).collect();
    all?.try_into()
        .map_err(|_| "another number of tensors".into())
}

/// `x` by the transposed `weight`.
fn times(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let (sequences, window, features) = x.dims3()?;
    let flat = x.reshape((sequences * window, features))?;
    let result = flat.matmul(&weight.t()?)?;
    result.reshape((sequences, window, ()))
}

/// Divides each vector by its root mean square.
fn norm(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    let size = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
    x.broadcast_div(&size)?.broadcast_mul(weight)
}
