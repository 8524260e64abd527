//! Weights in 8 bits with a scale a block, as DeepSeek-V3 is published: `NAME` in `F8_E4M3` and
//! `NAME_scale_inv`, one number a block, by which its elements are multiplied (docs/formats.md).

use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::source_tensor::{Step, Value};
use crate::tensor::cast::is_castable;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
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
/// its place as what they make; the scales are no tensors of their own then.
///
/// # Errors
/// [`Kind::Shape`] if scales don't fit their weight; [`Kind::MissingShard`] for scales without a
/// weight in 8 bits.
pub fn dequantise(inventory: &mut Inventory, block: [u64; 2]) -> Result<()> {
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
        let expected = match scaled.shape.0[..] {
            [rows, columns] => Some(Shape(vec![
                rows.div_ceil(block[0].max(1)),
                columns.div_ceil(block[1].max(1)),
            ])),
            _ => None,
        };
        if expected.as_ref() != Some(&scales.shape) || !is_castable(scales.dtype) {
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
    Ok(())
}
