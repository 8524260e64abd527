//! Weights in 8 bits with a scale a block, as DeepSeek-V3 is published: `NAME` in `F8_E4M3` and
//! `NAME_scale_inv`, one number a block, by which its elements are multiplied (docs/formats.md).

use super::padding::{Lengths, Rule};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::source_tensor::{Step, Value};
use crate::tensor::cast::is_castable;
use crate::tensor::dtype::Dtype;
use std::sync::Arc;

/// What the name of a weight's scales ends with.
pub const SCALES: &str = "_scale_inv";
/// Element type of what they make.
const MADE: Dtype = Dtype::BF16;

/// Whether a type is one that is stored with scales.
#[must_use]
pub fn is_scaled(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Puts each weight of `inventory` that is stored with scales, one for `block` rows and columns, in
/// its place as what they make; the scales are no tensors of their own then. Gives what is to be said:
/// of grids of scales that are larger than they need be, the first rows and columns count.
///
/// # Errors
/// [`Kind::Shape`] if scales don't fit their weight; [`Kind::MissingShard`] for scales without a
/// weight in 8 bits; [`Kind::Unsupported`] for scales that are powers of two alone.
pub fn dequantise(inventory: &mut Inventory, block: [u64; 2]) -> Result<Vec<String>> {
    let rules = rules(inventory, block);
    let mut filled = 0;
    let names: Vec<Arc<str>> = inventory.tensors.keys().cloned().collect();
    for name in names {
        let Some(weight) = name.strip_suffix(SCALES) else {
            continue;
        };
        let scaled = inventory.tensors.get(weight);
        let Some(scaled) = scaled.filter(|tensor| is_scaled(tensor.dtype)).cloned() else {
            let message = format!("there is no '{weight}' in 8 bits that it is for");
            return Err(Fault::new(Kind::MissingShard, message).tensor(&*name));
        };
        let Some(scales) = inventory.tensors.remove(&name) else {
            continue;
        };
        if scales.dtype == Dtype::F8_E8M0 {
            return Err(powers_of_two(&name));
        }
        let fits = match (&scaled.shape.0[..], &scales.shape.0[..]) {
            (&[rows, columns], &[down, across]) => {
                let due = [rows, columns].map(|length| length.max(1));
                let due = [
                    due[0].div_ceil(block[0].max(1)),
                    due[1].div_ceil(block[1].max(1)),
                ];
                filled += u64::from(due != [down, across]);
                rules[0].takes(due[0], down) && rules[1].takes(due[1], across)
            }
            _ => false,
        };
        if !fits || !is_castable(scales.dtype) {
            let message = format!(
                "is {}{}, which doesn't fit '{weight}' {} in blocks of {} by {}",
                scales.dtype, scales.shape, scaled.shape, block[0], block[1]
            );
            return Err(Fault::new(Kind::Shape, message)
                .tensor(&*name)
                .hint("config.json's quantization_config.weight_block_size says what a block is"));
        }
        let mut made = (*scaled).clone();
        made.value = Some(Arc::new(Value {
            dtype: MADE,
            steps: vec![Step::Scale { scales, block }],
        }));
        inventory.tensors.insert(made.name.clone(), Arc::new(made));
    }
    Ok((filled > 0).then(|| larger(filled)).into_iter().collect())
}

/// The fault for scales that are powers of two and nothing else.
#[must_use]
pub fn powers_of_two(scales: &str) -> Fault {
    let message = format!(
        "is {}: scales that are powers of two, of 8 bits each, as MXFP8 has them (scale_fmt 'ue8m0' or quant_method of \
         quantization_config in config.json), aren't read",
        Dtype::F8_E8M0
    );
    let fault = Fault::new(Kind::Unsupported, message).tensor(scales);
    fault.hint("take the model in bfloat16, or in 8 bits with a scale a block in F32, BF16 or F16")
}

/// What is to be said of so many grids that are larger than they need be.
fn larger(grids: u64) -> String {
    let are = if grids == 1 { "is" } else { "are" };
    let grids = counted(grids, "grid");
    format!(
        "{grids} of scales {are} larger than the weights need: the first rows and columns count"
    )
}

/// How the grids of all scales are filled up, by dimension; not at all where nothing fits them.
fn rules(inventory: &Inventory, block: [u64; 2]) -> [Rule; 2] {
    let mut lengths = [Lengths::default(), Lengths::default()];
    for (name, scales) in &inventory.tensors {
        let weight = name.strip_suffix(SCALES);
        let weight = weight.and_then(|weight| inventory.tensors.get(weight));
        let Some(weight) = weight else { continue };
        for ((all, length), scales) in lengths.iter_mut().zip(&weight.shape.0).zip(&scales.shape.0)
        {
            all.put(*length, *scales);
        }
    }
    let [rows, columns] = lengths;
    [(rows, block[0]), (columns, block[1])]
        .map(|(lengths, block)| lengths.rule(block).unwrap_or(Rule::Exact))
}
