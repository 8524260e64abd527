//! Masters of weights that an adapter changes.

use crate::fault::plain::counted;
use crate::plan::inventory::Inventory;
use crate::plan::lora::Taken;
use crate::plan::state::MASTER;

/// Leaves masters in 32 bits out of weights that were changed, and says so: a trainer goes on from its masters, and
/// these know nothing of the change.
pub fn leave_masters(inventory: &mut Inventory, taken: &Taken) -> Option<String> {
    let changed = taken.merged.iter().chain(&taken.replaced);
    let masters = changed.map(|name| format!("{MASTER}{name}"));
    let left: Vec<String> = masters
        .filter(|name| {
            let known = inventory.tensors.remove(name.as_str()).is_some();
            inventory.private.remove(name.as_str()) || known
        })
        .collect();
    let first = left.first()?;
    let (count, are) = (
        counted(left.len() as u64, "master"),
        if left.len() == 1 { "is" } else { "are" },
    );
    Some(format!(
        "{count} of weights that the adapter changes {are} left out, as {first}: a trainer makes them anew from the weights"
    ))
}
