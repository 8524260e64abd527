//! MindSpore's form of a network, of Megatron's whose layers are by themselves.

use super::names::{
    JOINED_EXPERTS, LOCAL_EXPERTS, MASTER, before_part, down_of, number, stacked_part, to_ours,
    to_theirs,
};
use super::rows::{Experts, Rows};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::select::Unmatched;
use crate::plan::source_tensor::SourceTensor;
use crate::strategy::Strategy;
use crate::tensor::shape::Shape;
use crate::view::{MadeOf, Piece, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names told of many.
const TOLD: usize = 3;

/// Whether a destination that is cut by `strategy` wants the layers of a source by themselves, which has
/// some of them in one tensor.
#[must_use]
pub fn is_layered_for(inventory: &Inventory, strategy: &Strategy) -> bool {
    let stacked = |name: &&Arc<str>| stacked_part(to_ours(name).1).is_some();
    let mut there = inventory.tensors.keys().filter(stacked).peekable();
    there.peek().is_some() && there.all(|name| strategy.layouts(name).is_empty())
}

/// Takes single numbers that `strategy` doesn't know, a job's counts and rates, for what every rank has for
/// itself, and leaves out masters that it doesn't know, unless `unmatched` says what is done with them: gives what
/// is to be said of these.
pub fn set_aside(
    inventory: &mut Inventory,
    strategy: &Strategy,
    unmatched: Unmatched,
) -> Option<String> {
    let unknown = |name: &Arc<str>| strategy.layouts(name).is_empty();
    let untold = unmatched == Unmatched::Fail;
    let mut masters = Vec::new();
    for (name, tensor) in std::mem::take(&mut inventory.tensors) {
        let single = tensor.shape.elements().is_ok_and(|count| count == 1);
        if untold && unknown(&name) && to_theirs(&name).1 == MASTER {
            masters.push(name);
        } else if unknown(&name) && single {
            inventory.private.insert(name);
        } else {
            inventory.tensors.insert(name, tensor);
        }
    }
    (!masters.is_empty()).then(|| {
        format!(
            "{} in 32 bits ({}) {} in the destination strategy, and {} behind",
            counted(masters.len() as u64, "master weight"),
            first(&masters, TOLD),
            if masters.len() == 1 {
                "isn't"
            } else {
                "aren't"
            },
            if masters.len() == 1 { "stays" } else { "stay" }
        )
    })
}

/// Experts of a layer that are to be in one tensor: what it is called, and each expert's own.
type Gathered = BTreeMap<(String, &'static str), BTreeMap<u64, (Arc<str>, Shape)>>;

/// What MindSpore's tensors are made of those of `inventory`, as `strategy` knows them: gates and ups in
/// turns, experts in one where it has these so.
///
/// # Errors
/// [`Kind::MissingShard`] for experts that aren't there, [`Kind::Shape`].
pub fn layered(inventory: &Inventory, strategy: &Strategy) -> Result<Table> {
    let (mut table, mut gathered) = (Table::new(), Gathered::new());
    for (name, tensor) in &inventory.tensors {
        let (_, state, weight) = to_theirs(name);
        let known = !strategy.layouts(name).is_empty();
        let (before, part) = before_part(weight).unwrap_or(("", weight));
        let before = format!("{state}{before}");
        if let Some((expert, own)) = part.strip_prefix(LOCAL_EXPERTS).and_then(number)
            && let Some((joined, own)) = JOINED_EXPERTS.iter().find(|row| row.1 == own)
            && !known
            && !strategy.layouts(&format!("{before}{joined}")).is_empty()
        {
            let experts = gathered.entry((before, *own)).or_default();
            experts.insert(expert, (name.clone(), tensor.shape.clone()));
            continue;
        }
        table.insert(
            name.clone(),
            in_turns(inventory, name, tensor, (weight, part))?,
        );
    }
    for ((before, own), experts) in gathered {
        let joined = JOINED_EXPERTS.iter().find(|row| row.1 == own);
        let name: Arc<str> = format!("{before}{}", joined.map_or("", |row| row.0)).into();
        let stand = strategy
            .layouts(&name)
            .first()
            .is_some_and(|stage| stage.layout.dimensions() == 3);
        let of = joined_experts(&experts, stand).map_err(|fault| fault.tensor(&*name))?;
        table.insert(name, of);
    }
    Ok(table)
}

/// A tensor as it is; one with all gates before all ups with these in turns.
fn in_turns(
    inventory: &Inventory,
    name: &Arc<str>,
    tensor: &SourceTensor,
    (weight, part): (&str, &str),
) -> Result<MadeOf> {
    let whole = || {
        MadeOf::new(
            tensor.shape.clone(),
            vec![Piece::identity(name.clone(), &tensor.shape)],
        )
    };
    let Some(down) = down_of(part).filter(|_| !part.starts_with(LOCAL_EXPERTS)) else {
        return Ok(whole());
    };
    let down = format!("{}{down}", weight.strip_suffix(part).unwrap_or_default());
    let columns = inventory
        .tensors
        .get(&*down)
        .and_then(|tensor| tensor.shape.0.last());
    let both = tensor.shape.0.first();
    if both
        .zip(columns)
        .is_none_or(|(both, columns)| Some(*both) != columns.checked_mul(2))
    {
        return Ok(whole());
    }
    let pieces = Rows::Interleaved.gates_first(name, &tensor.shape)?;
    let pieces = pieces.iter().map(|piece| piece.invert(name.clone()));
    Ok(MadeOf::new(tensor.shape.clone(), pieces.collect()))
}

/// Experts in one tensor.
fn joined_experts(experts: &BTreeMap<u64, (Arc<str>, Shape)>, stand: bool) -> Result<MadeOf> {
    let mut whole: Option<(Experts, MadeOf)> = None;
    for ((expert, (name, shape)), number) in experts.iter().zip(0u64..) {
        if *expert != number {
            let message = format!("expert {number} isn't there, though later ones are");
            return Err(Fault::new(Kind::MissingShard, message));
        }
        let [rows, columns] = shape.0[..] else {
            let message = format!("is {shape}, and no matrix");
            return Err(Fault::new(Kind::Shape, message).tensor(&**name));
        };
        let all = Experts {
            count: experts.len() as u64,
            own: [rows, columns],
            stand,
        };
        let (known, of) = whole.get_or_insert_with(|| (all, MadeOf::new(all.shape(), Vec::new())));
        if *known != all {
            let message = format!(
                "is {shape}, others are [{}, {}]",
                known.own[0], known.own[1]
            );
            return Err(Fault::new(Kind::Shape, message).tensor(&**name));
        }
        of.pieces
            .push(all.piece(&"".into(), number).invert(name.clone()));
    }
    let none = || Fault::new(Kind::Internal, "is made of nothing");
    whole.map(|(_, of)| of).ok_or_else(none)
}
