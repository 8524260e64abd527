//! Tensors of a rank's file, as the parts that they are of the network's.

use super::split::{Split, Spot, models};
use super::stand;
use crate::catalog::{Entry, FileSchema, Held, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{self, Pickle, Value};
use crate::store::formats::torch::{Saved, StoredTensor, tensor};
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What stands before the number of a layer, and of an expert.
const LAYERS: &str = "decoder.layers.";
const EXPERTS: &str = ".mlp.experts.local_experts.";
/// Ends of the names of what is cut by rows, and by columns.
const ROWS: [&str; 11] = [
    "word_embeddings.weight",
    "output_layer.weight",
    ".linear_qkv.weight",
    ".linear_qkv.bias",
    ".linear_fc1.weight",
    ".linear_fc1.bias",
    ".linear_q_proj.weight",
    ".linear_q_up_proj.weight",
    ".linear_kv_up_proj.weight",
    ".eh_proj.weight",
    "output_layer.bias",
];
const COLUMNS: [&str; 2] = [".linear_proj.weight", ".linear_fc2.weight"];
/// Beginnings of names before Megatron-Core.
const BEFORE: [&str; 2] = ["language_model", "word_embeddings_for_head"];
/// Parts that aren't known to be cut so or so.
const UNKNOWN: [&str; 2] = [".mlp.experts.weight1", ".mlp.experts.weight2"];

/// What a file of the rank with these numbers has.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::Unsupported`] for names before Megatron-Core, [`Kind::Shape`]; [`Kind::Io`].
pub(super) fn parts(numbers: &[u64], file: &ReadFile) -> Result<FileSchema> {
    let saved = Saved::open(file, 0..file.size())?;
    let pickle = pickle::read(&saved.pickle)?;
    let split = Split::of(&pickle)?;
    let spot = split.spot(numbers)?;
    let models = models(&pickle, split.turns);
    if models.is_empty() {
        return Err(Fault::new(
            Kind::Unsupported,
            "has no weights: there is no model in it",
        ));
    }
    let mut taken = Taken {
        split,
        spot,
        saved: &saved,
        entries: Vec::new(),
        held: Held::default(),
    };
    let agreed = &mut taken.held.agreed;
    agreed.insert("how its job was cut".to_owned(), split.to_string());
    if let Some(iteration) = stand::iteration(&pickle, pickle.root()) {
        agreed.insert("iteration".to_owned(), iteration.to_string());
    }
    for (turn, model) in models {
        let items = pickle.items(model);
        let items = items.ok_or_else(|| Fault::new(Kind::Corrupt, "its model is no mapping"))?;
        let (stored, at) = (tensors(&pickle, items)?, |name: &str, fault: Fault| {
            fault.tensor(name)
        });
        for (name, tensor) in &stored {
            taken
                .take(&stored, (turn, name), tensor)
                .map_err(|fault| at(name, fault))?;
        }
    }
    for key in ["optimizer", "opt_param_scheduler", "rng_state"] {
        if spot == Spot::default() && pickle.get(pickle.root(), key).is_some() {
            taken
                .held
                .values
                .insert(key.to_owned(), "<not read>".to_owned());
        }
    }
    let schema = FileSchema::new(taken.entries, BTreeMap::new(), Vec::new(), file.size())?;
    schema.holding(taken.held)
}

/// The tensors of a model, by their names.
fn tensors<'a>(pickle: &Pickle<'a>, items: &[Value]) -> Result<BTreeMap<&'a str, StoredTensor>> {
    let mut stored = BTreeMap::new();
    for pair in items.chunks_exact(2) {
        let name = pickle.text(pair[0]);
        let name =
            name.ok_or_else(|| Fault::new(Kind::Corrupt, "its model has a name that is no text"))?;
        let at = |fault: Fault| fault.tensor(name);
        if name.ends_with("_extra_state") {
            continue;
        }
        if BEFORE.iter().any(|before| name.starts_with(before)) {
            let fault = Fault::new(
                Kind::Unsupported,
                "is of Megatron-LM before Megatron-Core, which is not read",
            );
            return Err(at(fault.hint(
                "Megatron's own tools convert it: tools/checkpoint/convert.py",
            )));
        }
        if let Some(tensor) = tensor(pickle, pair[1]).map_err(at)?
            && stored.insert(name, tensor).is_some()
        {
            return Err(at(Fault::new(Kind::Corrupt, "is there twice")));
        }
    }
    Ok(stored)
}

/// How a tensor is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Every rank has all of it.
    Whole,
    Rows,
    /// Rows of gates, and rows of ups.
    Halves,
    Columns,
}

/// What has been taken of a file.
struct Taken<'a> {
    split: Split,
    spot: Spot,
    saved: &'a Saved<'a>,
    entries: Vec<Entry>,
    held: Held,
}

impl Taken<'_> {
    /// Takes a tensor, unless another rank's copy of it is taken.
    fn take(
        &mut self,
        stored: &BTreeMap<&str, StoredTensor>,
        (turn, name): (u64, &str),
        tensor: &StoredTensor,
    ) -> Result<()> {
        if UNKNOWN.iter().any(|end| name.ends_with(end)) {
            let message = "has all experts in one, which is not read in this form";
            let fault = Fault::new(Kind::Unsupported, message);
            return Err(fault.hint("Megatron's own tools convert it to torch_dist"));
        }
        let cut = cut(stored, name, tensor);
        let (own, is_expert) = self.own_name(turn, name)?;
        let ranks = match is_expert {
            true => self.split.expert_tensors,
            false => self.split.tensors,
        };
        let rank = self.spot.tensor % ranks.max(1);
        let last = self.split.last();
        if is_copy(&last, &own, (cut, is_expert, ranks)) && tensor.strides.is_none() {
            let part = match cut {
                Cut::Whole => String::new(),
                _ => format!(" of tensor rank {rank}"),
            };
            let window = self.saved.window(tensor)?;
            let says = self.saved.sampled(tensor, &window)?;
            self.held.agreed.insert(format!("{own}{part}"), says);
        }
        if is_copy(&self.spot, &own, (cut, is_expert, ranks)) {
            return Ok(());
        }
        let width = u64::from(tensor.dtype.bits() / 8);
        let usual = || {
            let strides = tensor.shape.strides().into_iter();
            strides.map(|stride| stride * width).collect()
        };
        let lies = Lies {
            own: own.into(),
            dtype: tensor.dtype,
            strides: tensor.strides.clone().unwrap_or_else(usual),
            window: self.saved.window(tensor)?,
        };
        let (full, offset) = placed(tensor, cut, ranks, rank)?;
        if cut != Cut::Halves {
            self.put(&lies, tensor.shape.clone(), full, offset, 0);
            return Ok(());
        }
        let mut half = tensor.shape.clone();
        half.0[0] /= 2;
        for (number, ups) in [(0, 0), (1, full.0[0] / 2)] {
            let mut offset = vec![0; half.0.len()];
            offset[0] = ups + rank * half.0[0];
            let first = number * half.0[0] * lies.strides[0];
            self.put(&lies, half.clone(), full.clone(), offset, first);
        }
        Ok(())
    }

    /// Enters a part whose first byte is `first` in what lies there.
    fn put(&mut self, lies: &Lies, shape: Shape, full: Shape, offset: Vec<u64>, first: u64) {
        let steps = shape.0.iter().zip(&lies.strides);
        let last: u64 = steps
            .map(|(size, stride)| size.saturating_sub(1) * stride)
            .sum();
        let width = u64::from(lies.dtype.bits() / 8);
        let begin = lies.window.start + first;
        let end = (begin + last + width).min(lies.window.end).max(begin);
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let at: Vec<String> = offset.iter().map(u64::to_string).collect();
        let part = Part {
            of: lies.own.clone(),
            full,
            offset,
            strides: lies.strides.clone(),
        };
        self.held.parts.insert(number, part);
        self.entries.push(Entry {
            name: format!("{}\u{1f}{}", lies.own, at.join(".")).into(),
            dtype: lies.dtype,
            shape,
            segments: std::iter::once(begin..end).collect(),
        });
    }

    /// What a tensor is called in the whole network, and whether it is an expert's.
    fn own_name(&self, turn: u64, name: &str) -> Result<(String, bool)> {
        let Some((layer, part)) = name.strip_prefix(LAYERS).and_then(number) else {
            return Ok((name.to_owned(), false));
        };
        let layer = self.split.layer(&self.spot, turn, layer)?;
        let expert = EXPERTS
            .strip_prefix('.')
            .and_then(|experts| part.strip_prefix(experts));
        let Some((expert, rest)) = expert.and_then(number) else {
            return Ok((format!("{LAYERS}{layer}.{part}"), false));
        };
        let each = self.split.expert_count / self.split.experts;
        if expert >= each {
            let message = format!("has expert {expert} of {each}");
            return Err(Fault::new(Kind::Corrupt, message));
        }
        let expert = self.spot.expert * each + expert;
        Ok((format!("{LAYERS}{layer}{EXPERTS}{expert}.{rest}"), true))
    }
}

/// How a tensor lies in its file, and what it is called in the network.
struct Lies {
    own: Arc<str>,
    dtype: Dtype,
    strides: Vec<u64>,
    window: Range<u64>,
}

/// Whether what the rank at `spot` has of a tensor is another's, too: of what isn't cut, and of tied embeddings in
/// later stages. If it isn't so of the last one, nobody has a copy.
fn is_copy(spot: &Spot, own: &str, (cut, is_expert, ranks): (Cut, bool, u64)) -> bool {
    let whole = cut == Cut::Whole && spot.tensor > 0;
    let of_experts = match is_expert {
        true => spot.tensor >= ranks,
        false => spot.expert > 0,
    };
    whole || of_experts || (spot.stage > 0 && own.starts_with("embedding."))
}

/// The full shape of a tensor of which `rank` of `ranks` has a part, and where that begins.
fn placed(tensor: &StoredTensor, cut: Cut, ranks: u64, rank: u64) -> Result<(Shape, Vec<u64>)> {
    let (mut full, mut offset) = (tensor.shape.clone(), vec![0; tensor.shape.0.len()]);
    let axis = match cut {
        Cut::Whole => return Ok((full, offset)),
        Cut::Rows | Cut::Halves => 0,
        Cut::Columns => 1,
    };
    let few = || Fault::new(Kind::Shape, "has too few dimensions");
    let size = *tensor.shape.0.get(axis).ok_or_else(few)?;
    let large = || Fault::new(Kind::Shape, "is too large");
    full.0[axis] = size.checked_mul(ranks).ok_or_else(large)?;
    offset[axis] = size.checked_mul(rank).ok_or_else(large)?;
    full.bytes(tensor.dtype)?;
    Ok((full, offset))
}

/// A number, and what stands behind its dot.
fn number(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| plain)?, rest))
}

/// How a tensor is cut: as its name says, and of what has gates as the columns of what follows it.
fn cut(stored: &BTreeMap<&str, StoredTensor>, name: &str, tensor: &StoredTensor) -> Cut {
    if COLUMNS.iter().any(|end| name.ends_with(end)) {
        return Cut::Columns;
    }
    if !ROWS.iter().any(|end| name.ends_with(end)) {
        return Cut::Whole;
    }
    let base = [".linear_fc1.weight", ".linear_fc1.bias"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    let down = base.map(|base| format!("{base}.linear_fc2.weight"));
    let columns = down.and_then(|down| stored.get(&*down)?.shape.0.get(1).copied());
    let both = tensor.shape.0.first().copied();
    match columns.and_then(|columns| columns.checked_mul(2)) {
        Some(rows) if Some(rows) == both => Cut::Halves,
        _ => Cut::Rows,
    }
}
