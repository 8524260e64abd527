//! How large a model may be: what a config.json says is checked before names are spelled out for it.

use super::expression::Numbers;
use super::family::Family;
use crate::fault::{Fault, Kind, Result};

/// Most layers of a model.
const LAYERS_MAX: u64 = 1 << 14;
/// Most experts of a layer.
const EXPERTS_MAX: u64 = 1 << 16;
/// Most tensors of a model, as far as the table foretells.
const TENSORS_MAX: u64 = 1 << 22;

/// Refuses numbers that no model has: a table spelled out for them would fill the memory.
///
/// # Errors
/// [`Kind::Corrupt`] naming the number.
pub(super) fn check_size(family: &Family, numbers: &Numbers) -> Result<()> {
    let refuse = |what: &str, count: u64, most: u64| {
        let message = format!("asks for {count} {what}, at most {most} are allowed");
        Err(Fault::new(Kind::Corrupt, message).hint("is it the model's own config.json?"))
    };
    let mut layers = 0u64;
    for block in &family.blocks {
        let (from, to) = (numbers.value(&block.from)?, numbers.value(&block.to)?);
        layers = layers.saturating_add(to.saturating_sub(from));
    }
    if layers > LAYERS_MAX {
        return refuse("layers", layers, LAYERS_MAX);
    }
    let experts = numbers.value("experts").unwrap_or(0);
    if experts > EXPERTS_MAX {
        return refuse("experts", experts, EXPERTS_MAX);
    }
    let tensors = layers.saturating_mul(experts.saturating_add(1));
    if tensors > TENSORS_MAX {
        return refuse("experts of layers", tensors, TENSORS_MAX);
    }
    Ok(())
}
