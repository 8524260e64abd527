//! The pairs of a model that was saved with its adapter, unmerged.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::{HYPER_STEM, Inventory, file_stem, whole_tensor};
use crate::plan::lora::{
    BEFORE, BELOW_PAIR, MAGNITUDES, Named, TRAINED, WRAPPED, is_of_pair, no_pair, part_of, plain,
};
use crate::plan::state::is_state;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Takes the pairs of full weights that lie where no strategy placed them, in the file of hyper-parameters, for tensors as
/// the others.
fn set_out(inventory: &mut Inventory, catalog: &Catalog) -> Result<()> {
    let files = catalog.ranks.get(&0).into_iter().flatten();
    let full = files.filter(|file| !file.path.contains('/') && file_stem(&file.path) == HYPER_STEM);
    for entry in full.flat_map(|file| &file.schema.entries) {
        if is_of_pair(&entry.name) && inventory.private.remove(&entry.name) {
            let tensor = whole_tensor(entry, 0).map_err(|fault| fault.tensor(&*entry.name))?;
            inventory
                .tensors
                .insert(entry.name.clone(), Arc::new(tensor));
        }
    }
    Ok(())
}

/// Takes the pairs that lie among the tensors of `inventory` itself out of it. What the optimizer
/// keeps of them goes too: no layout without them has a place for it. Where PEFT has saved its whole model, the others
/// get the model's own names: of a module that was trained in full there is what was trained, and not what was before.
///
/// # Errors
/// [`Kind::Unsupported`] for a vector of `DoRA`'s, [`Kind::Corrupt`] for two tensors of one name.
pub fn take_own_pairs(inventory: &mut Inventory, catalog: &Catalog) -> Result<Vec<Named>> {
    set_out(inventory, catalog)?;
    let (mut own, mut kept) = (Vec::new(), BTreeMap::new());
    let tensors = std::mem::take(&mut inventory.tensors);
    let trained = |name: &str| {
        let twin = name.replace(BEFORE, TRAINED);
        twin != name && tensors.contains_key(twin.as_str())
    };
    let wrapped = |name: &Arc<str>| {
        name.contains(BELOW_PAIR) || is_of_pair(name) && name.starts_with(WRAPPED)
    };
    let wrapped = tensors.keys().any(wrapped);
    for (name, tensor) in &tensors {
        if name.contains(MAGNITUDES) && !is_state(name) {
            return Err(no_pair(name));
        }
        match part_of(name) {
            Some(_) if is_state(name) => {}
            Some(_) => own.push((name.clone(), tensor.clone())),
            None if wrapped && trained(name) => {}
            None => {
                let name = if wrapped {
                    plain(name).into()
                } else {
                    name.clone()
                };
                if let Some(other) = kept.insert(name, tensor.clone()) {
                    let message = format!("without PEFT's words it has the name of {}", other.name);
                    return Err(Fault::new(Kind::Corrupt, message).tensor(&*tensor.name));
                }
            }
        }
    }
    inventory.tensors = kept;
    Ok(own)
}
