//! Whether all ranks' parts are there: from their own files, or from copies on others.
//!
//! A pure function of who has which tensors and of the strategy. Tensors that a job never saved, such as an
//! optimizer's moments, are no loss.

use crate::catalog::{Catalog, FileSchema};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::source::ranks::named;
use crate::store::rank_dir::rank_in;
use crate::strategy::{StageLayout, Strategy};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// Most tensors that a message names.
const SHOWN_MAX: usize = 3;

/// Checks that the parts of the ranks that have no files are held by others, for all tensors of
/// `strategy` that are `needed`.
///
/// # Errors
/// [`Kind::MissingShard`] naming all missing ranks and the first tensors.
pub(crate) fn check(
    catalog: &Catalog,
    strategy: &Strategy,
    needed: impl Fn(&str) -> bool,
) -> Result<()> {
    let absent = |rank: &u32| !catalog.ranks.contains_key(rank);
    let missing: Vec<u32> = (0..strategy.ranks()).filter(absent).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut presence = Presence::new(catalog, strategy, &missing);
    let mut lost: Vec<&str> = Vec::new();
    for name in strategy.names().filter(|name| needed(name)) {
        let found = strategy.layouts(name).iter();
        let found: Vec<Found> = found.map(|stage| presence.look(name, stage)).collect();
        let gone = found.contains(&Found::Lost) && !found.contains(&Found::Whole);
        if gone && !presence.never_saved(name) {
            lost.push(name);
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let tensors = first(&lost, SHOWN_MAX);
    let message = format!(
        "{} of {} {} missing, and no other rank has {} parts of {tensors}",
        named(&missing),
        strategy.ranks(),
        if missing.len() == 1 { "is" } else { "are" },
        if missing.len() == 1 { "its" } else { "their" },
    );
    Err(Fault::new(Kind::MissingShard, message)
        .rank(missing[0])
        .file(format!("rank_{}", missing[0]))
        .hint(match catalog.paths().iter().any(|path| rank_in(path).is_some()) {
            true => "bring all ranks' directories together, or start a process on every node that has some",
            false => "ranks are counted from 0, and a pattern has {rank} in the place of their numbers; for full weights leave \
                      --src-strategy out",
        }))
}

/// What is there of a tensor in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// All cells.
    Whole,
    /// None, and no missing rank is to blame.
    Unsaved,
    /// Not all: missing ranks had it, or may have had it.
    Lost,
}

/// The cells of a layout that missing ranks have a part in.
struct Cells {
    /// For each of them the ranks that are there.
    touched: Vec<Vec<u32>>,
    /// The ranks of a cell that are all there, if there is one.
    sound: Option<Vec<u32>>,
}

struct Presence<'a> {
    catalog: &'a Catalog,
    strategy: &'a Strategy,
    missing: &'a [u32],
    cells: HashMap<(*const Layout, u32), Rc<Cells>>,
    /// Whether any tensor's name begins so.
    beginnings: HashMap<&'a str, bool>,
    /// The files say that every rank saved all that is its own.
    undivided: bool,
}

impl<'a> Presence<'a> {
    fn new(catalog: &'a Catalog, strategy: &'a Strategy, missing: &'a [u32]) -> Self {
        let every = |schema: &FileSchema| {
            let removed = schema.metadata.get("remove_redundancy");
            removed.is_some_and(|value| value == "False")
        };
        Presence {
            catalog,
            strategy,
            missing,
            cells: HashMap::new(),
            beginnings: HashMap::new(),
            undivided: catalog.distinct_schemas().all(|(_, schema)| every(schema)),
        }
    }

    fn look(&mut self, name: &str, stage: &StageLayout) -> Found {
        let key = (Arc::as_ptr(&stage.layout), stage.stage);
        let cells = match self.cells.get(&key) {
            Some(cells) => Rc::clone(cells),
            None => {
                let cells = Rc::new(self.cells_of(stage));
                self.cells.insert(key, Rc::clone(&cells));
                cells
            }
        };
        let held = |ranks: &Vec<u32>| {
            ranks
                .iter()
                .any(|rank| self.catalog.find(*rank, name).is_some())
        };
        let Some(empty) = cells.touched.iter().find(|ranks| !held(ranks)) else {
            return Found::Whole;
        };
        // A tensor is saved by the holders of all its cells, or by none.
        let unsaved = cells.sound.as_ref().is_some_and(|ranks| !held(ranks));
        if unsaved || !empty.is_empty() && self.undivided {
            return Found::Unsaved;
        }
        Found::Lost
    }

    fn cells_of(&self, stage: &StageLayout) -> Cells {
        let layout = &stage.layout;
        let first = stage.stage * self.strategy.ranks_per_stage();
        let end = first + layout.ranks().min(self.strategy.ranks_per_stage());
        let there = |rank: &u32| self.catalog.ranks.contains_key(rank);
        let holders = |rank: u32| -> Vec<u32> {
            let cell = layout.cell(rank - first);
            layout.holders(&cell).map(|local| first + local).collect()
        };
        let mut seen = HashSet::new();
        let from = self.missing.partition_point(|rank| *rank < first);
        let missing = self.missing[from..].iter().take_while(|rank| **rank < end);
        let touched = missing
            .filter(|rank| seen.insert(layout.cell(**rank - first)))
            .map(|rank| holders(*rank).into_iter().filter(there).collect())
            .collect();
        let sound = (first..end)
            .filter(there)
            .map(holders)
            .find(|ranks| ranks.iter().all(there));
        Cells { touched, sound }
    }

    /// Whether `name` is a state of another tensor (`adam_m.w` of `w`), of a sort that no rank has any of.
    fn never_saved(&mut self, name: &'a str) -> bool {
        let Some((beginning, of)) = name.split_once('.') else {
            return false;
        };
        if self.strategy.layouts(of).is_empty() {
            return false;
        }
        let catalog = self.catalog;
        let some = self.beginnings.entry(beginning).or_insert_with(|| {
            let schemas = catalog.distinct_schemas();
            let names =
                schemas.flat_map(|(_, schema)| schema.entries.iter().map(|entry| &entry.name));
            let rest = |name: &'a Arc<str>| name.strip_prefix(beginning);
            names.filter_map(rest).any(|rest| rest.starts_with('.'))
        });
        !*some
    }
}
