//! Megatron-Core's form of a network, at either end of a job.

use crate::fault::{Fault, Kind, Result};
use crate::job::metadata::OWN_KEYS;
use crate::job::spec::{Viewed, Write};
use crate::plan::arrange::Files;
use crate::plan::build::Select;
use crate::plan::inventory::Inventory;
use crate::plan::megatron::{
    REMAKE, Rows, is_layered_for, layered, set_aside, spread, stack, unstack,
};
use crate::plan::state::MASTER;
use crate::source::Opened;
use crate::strategy::Strategy;
use crate::view::{Cut, MadeOf, Piece, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What layers by themselves are made of in Megatron-Core, as a family's table is asked for it.
const MEGATRON: [(&str, &str); 5] = [
    ("names", "mcore"),
    ("qkv", "interleaved"),
    ("ffn", "contiguous"),
    ("experts", "separate"),
    ("tp", "1"),
];
/// The same as MindSpore usually has it.
const MINDSPORE: [(&str, &str); 5] = [
    ("names", "mcore"),
    ("qkv", "interleaved"),
    ("ffn", "interleaved"),
    ("experts", "stacked"),
    ("tp", "1"),
];

/// What has queries, keys and values in one.
const QUERIES: &str = ".self_attention.linear_qkv.";

/// What is said where files don't say how their rows lie.
const UNTOLD_ROWS: &str = "the files don't say in which order they have the rows of gate and up, and of queries, keys and \
                           values: they are taken as MindSpore's networks have them, in turns";

/// What is made, and what it is cut by.
pub(super) struct Formed {
    pub(super) viewed: Viewed,
    /// Whether that is more than each tensor of itself.
    pub(super) is_view: bool,
    /// What the destination is cut by, where it isn't what was given.
    pub(super) strategy: Option<Strategy>,
}

/// Whether Megatron's form is written.
fn is_stacked(files: &Files) -> bool {
    matches!(files, Files::Directory { format, .. } if format.stacks_layers())
}

/// Puts the layers of a source that has them in one tensor by themselves, where they are wanted so; `strategy`
/// is that of the destination. Local.
///
/// # Errors
/// As [`unstack`].
pub(super) fn by_layers(
    source: &mut Opened,
    write: &Write,
    strategy: Option<&Strategy>,
) -> Result<()> {
    let strategy = strategy.filter(|_| !is_stacked(&write.files));
    let told = source.source.told.as_ref();
    let theirs = told.is_some_and(|told| told.format.stacks_layers());
    let inventory = &mut source.inventory;
    let wanted = strategy.is_some_and(|strategy| theirs || is_layered_for(inventory, strategy));
    if write.view.is_none() && !wanted {
        return Ok(());
    }
    let done = unstack(inventory, &source.source.catalog);
    source.layered = done.map_err(|fault| source.source.place(fault))? || theirs;
    if source.layered {
        for (key, value) in MEGATRON {
            let known = source.metadata.entry(format!("{OWN_KEYS}{key}"));
            known.or_insert_with(|| value.to_owned());
        }
        let unmatched = write.leftovers.unmatched();
        let aside = |strategy| set_aside(&mut source.inventory, strategy, unmatched);
        let note = strategy.and_then(aside);
        source.source.notes.extend(note);
    }
    Ok(())
}

/// Refuses masters that no strategy places: a trainer goes on from those that would be made of the weights.
fn refuse_unplaced(inventory: &Inventory, select: &Select) -> Result<()> {
    let mut private = inventory.private.iter();
    let Some(name) = private.find(|name| name.starts_with(MASTER) && select.keeps(name)) else {
        return Ok(());
    };
    let message = "the source's strategy doesn't know it, and Megatron's masters would be made of the weights";
    Err(Fault::new(Kind::Strategy, message)
        .tensor(&**name)
        .hint(
            "a layout (--src-strategy dp=2,tp=4, with --model DIR) knows masters; --filter-out-param-prefix main_param. goes on \
             without them",
        ))
}

/// What `viewed` is in the form of the destination, under the names of `select`; `strategy` is that of the destination.
/// Local.
///
/// # Errors
/// As [`stack`] and [`layered`].
pub(super) fn formed(
    write: &Write,
    select: &Select,
    files: &Files,
    opened: &Opened,
    strategy: Option<&Strategy>,
    mut viewed: Viewed,
) -> Result<Formed> {
    let is_view = write.view.is_some();
    let mut formed = Formed {
        viewed: Viewed::default(),
        is_view,
        strategy: None,
    };
    let inventory = &opened.inventory;
    if is_stacked(files) {
        refuse_unplaced(inventory, select)?;
        let told = opened.source.told.as_ref();
        let theirs = told.is_some_and(|told| told.format.stacks_layers());
        let (table, recorded) = match is_view {
            true => (std::mem::take(&mut viewed.table), Some(&viewed.metadata)),
            false => (
                as_it_is(inventory, select)?,
                (!theirs).then_some(&opened.metadata),
            ),
        };
        let mut rows = Rows::Contiguous(1);
        if let Some(recorded) = recorded {
            rows = Rows::recorded(recorded, OWN_KEYS);
            check_queries(&table, recorded)?;
        }
        if !is_view && !theirs && !opened.metadata.contains_key(&format!("{OWN_KEYS}ffn")) {
            viewed.notes.push(UNTOLD_ROWS.to_owned());
        }
        viewed.table = stack(&table, rows)?;
        // Each file tells where its parts lie in the whole: no group need be in one.
        for made in viewed.table.values_mut() {
            made.cut = Cut::Anywhere;
        }
        let ranks = strategy.map(Strategy::ranks);
        formed.strategy = ranks
            .map(|ranks| spread(&viewed.table, ranks))
            .transpose()?;
        record(&mut viewed, &MEGATRON);
        formed.is_view = true;
    } else if let (true, false, Some(strategy)) = (opened.layered, is_view, strategy) {
        viewed.table = renamed(layered(inventory, strategy)?, select)?;
        record(&mut viewed, &MINDSPORE);
        formed.is_view = true;
    }
    formed.viewed = viewed;
    Ok(formed)
}

/// Checks that queries, keys and values in one lie as Megatron has them, as far as is `recorded`. Local.
///
/// # Errors
/// [`Kind::Unsupported`].
fn check_queries(table: &Table, recorded: &BTreeMap<String, String>) -> Result<()> {
    let form = recorded.get(&format!("{OWN_KEYS}qkv"));
    if form.is_none_or(|form| form != "contiguous") {
        return Ok(());
    }
    let mut names = table.keys();
    let Some(name) = names.find(|name| name.contains(QUERIES)) else {
        return Ok(());
    };
    let message = "its rows are contiguous (all queries, then all keys, then all values), and Megatron has them in \
                   turns by groups";
    Err(Fault::new(Kind::Unsupported, message)
        .tensor(&**name)
        .hint(REMAKE))
}

/// Says of the files written how tensors lie in them.
fn record(viewed: &mut Viewed, form: &[(&str, &str)]) {
    let form = form
        .iter()
        .map(|(key, value)| (format!("{OWN_KEYS}{key}"), (*value).to_owned()));
    viewed.metadata.extend(form);
}

/// Each tensor of itself, under the name that it is to have.
fn as_it_is(inventory: &Inventory, select: &Select) -> Result<Table> {
    // As MindSpore's unify, which leaves these out of the merge.
    let kept = inventory
        .tensors
        .iter()
        .filter(|(name, _)| !name.starts_with("accu_grads"));
    let whole = kept.map(|(name, tensor)| {
        let piece = Piece::identity(name.clone(), &tensor.shape);
        (name.clone(), MadeOf::new(tensor.shape.clone(), vec![piece]))
    });
    renamed(whole.collect(), select)
}

/// The same under the names that are asked for, without what is left out.
fn renamed(table: Table, select: &Select) -> Result<Table> {
    let mut all = Table::new();
    for (own, of) in table.into_iter().filter(|(name, _)| select.keeps(name)) {
        let asked = select.read.iter().find(|(_, read)| ***read == *own);
        let name: Arc<str> = match asked {
            Some((written, _)) => written.as_str().into(),
            None => select.written_name(&own),
        };
        if all.insert(name.clone(), of).is_some() {
            let message = format!("'{own}' and another one would be written under this name");
            let fault = Fault::new(Kind::Ambiguous, message).tensor(&*name);
            return Err(fault.hint("--name-map must give each tensor a name of its own"));
        }
    }
    Ok(all)
}
