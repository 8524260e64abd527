//! Latent projections (DeepSeek-V3's attention): each by itself or in one.

use super::choices::{Choices, LATENT_KEY, Latent, Scheme, spelled};
use super::family::{Family, Rule};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;

/// Refuses latent projections in one where the names that are chosen know none.
pub(super) fn check_latent(family: &Family, choices: &Choices) -> Result<()> {
    let tells = |rule: &Rule| {
        let when = rule.when.as_deref();
        rule.mcore.is_some() && when.is_some_and(|when| when.contains(LATENT_KEY))
    };
    let known = choices.names == Scheme::Mcore && family.tensors.iter().any(tells);
    if choices.mla == Latent::Separate || known {
        return Ok(());
    }
    let (family, names) = (&family.family, spelled(choices.names));
    let message =
        format!("--mla joined: family {family} has nothing of the kind with {names} names");
    Err(Fault::new(Kind::Usage, message)
        .hint("it is for latent attention with mcore names, as DeepSeek-V3 has it"))
}

/// How latent projections are kept, by their names.
pub(super) fn latent(inventory: &Inventory) -> Latent {
    let names = inventory.tensors.keys();
    let joined = names
        .map(|name| &**name)
        .any(|name| name.contains(".linear_kvb."));
    if joined {
        Latent::Joined
    } else {
        Latent::Separate
    }
}
