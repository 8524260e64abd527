//! Which process of a site builds which window.
//!
//! The files of the site, laid end to end, are cut into equal shares by bytes, one a process; so work is
//! even, and two processes seldom write one file at the same time, for which they would have to wait for
//! each other. Where all nodes write to one place and see different shards, a window is built on a node
//! that sees most of what it is made of, so that little is sent. Where several nodes write the same files,
//! whole blocks of them fall to each (`nodes.rs`).

use crate::catalog::{Catalog, Place, ShardFile};
use crate::layout::Cell;
use crate::plan::group::SLAB_BYTES;
use crate::plan::nodes::Nodes;
use crate::plan::ratio::portion;
use crate::plan::reach::{ExchangeMode, Reach};
use crate::plan::site::Site;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::window::Window;
use crate::plan::work::Work;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::view::Piece;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Turns of a process through the site's files: so many pieces of them fall to each, spread over all.
const TURNS: u64 = 64;
/// Places of a window that are looked at, where its ends are made of what different nodes see.
const PROBES: u64 = 8;

/// The share of one process, or of one of its threads.
pub(super) struct Deal<'a> {
    files: Files<'a>,
    share: Range<u64>,
    local: Option<Local<'a>>,
    nodes: Option<Nodes>,
}

impl<'a> Deal<'a> {
    pub(super) fn of(work: &Work<'a>) -> Self {
        let files = Files::of(work.site, work.destination);
        let nodes = Nodes::of(work, files.bytes());
        let share = nodes.as_ref().map(|nodes| nodes.share().clone());
        Deal {
            share: share.unwrap_or_else(|| files.share(work.site)),
            local: Local::of(work, &files),
            nodes,
            files,
        }
    }

    /// What falls to this node, where several write the same files.
    pub(super) fn nodes(&self) -> Option<&Nodes> {
        self.nodes.as_ref()
    }

    /// Whether nodes see different sources, and build what they see.
    pub(super) fn by_sight(&self) -> bool {
        self.local.is_some()
    }

    /// Whether `window` falls to this node; `None` if no node sees more of it than any other. To be asked
    /// as [`Deal::takes`].
    pub(super) fn node_takes(&self, window: &Window<'_>) -> Option<bool> {
        self.local.as_ref()?.node_takes(window)
    }

    /// Whether a window of this node falls to this process, or thread; `None` if not by turns.
    pub(super) fn lane_takes(&self, window: &Window<'_>) -> Option<bool> {
        Some(self.local.as_ref()?.lane_takes(window))
    }

    /// Where the file of `place` begins among the site's bytes.
    pub(super) fn file(&self, destination: &Catalog, place: Place) -> u64 {
        self.files.start(destination, place)
    }

    /// The ranks that have files in the share, or may have.
    pub(super) fn ranks(&self) -> &'a [u32] {
        match self.local {
            Some(_) => self.files.ranks,
            None => self.files.ranks_of(&self.share),
        }
    }

    /// Where the targets of a unit lie among the site's bytes: first byte and length.
    pub(super) fn extents(&self, destination: &Catalog, targets: &[Place]) -> Vec<(u64, u64)> {
        let extent = |place: &Place| self.files.extent(destination, *place);
        targets.iter().map(extent).collect()
    }

    /// Whether all windows of `cells`, neighbours of `plan`, go to other nodes.
    pub(super) fn passes_by(&self, plan: &TensorPlan, cells: &[Cell]) -> bool {
        let local = self.local.as_ref();
        local.is_some_and(|local| local.passes_by(plan, cells).unwrap_or(false))
    }

    /// Whether `window` falls to this share. To be asked of all windows of [`Deal::ranks`], in order.
    pub(super) fn takes(&self, window: &Window<'_>) -> bool {
        let local = self.local.as_ref();
        match local.and_then(|local| local.takes(window)) {
            Some(takes) => takes,
            None => self.share.contains(&window.position),
        }
    }
}

/// The files of a site laid end to end, rank by rank.
struct Files<'a> {
    ranks: &'a [u32],
    /// Where each rank's files begin, and where the last rank's end.
    starts: Vec<u64>,
}

impl<'a> Files<'a> {
    fn of(site: &'a Site, destination: &Catalog) -> Self {
        let mut starts = vec![0];
        let mut end = 0;
        for rank in &site.ranks {
            let files = destination.ranks.get(rank).map_or(&[][..], Vec::as_slice);
            end += files.iter().map(file_weight).sum::<u64>();
            starts.push(end);
        }
        Files {
            ranks: &site.ranks,
            starts,
        }
    }

    fn bytes(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    /// The bytes that fall to the process.
    fn share(&self, site: &Site) -> Range<u64> {
        let bound = |index: u32| portion(self.bytes(), index.into(), site.processes.max(1).into());
        bound(site.index)..bound(site.index + 1)
    }

    /// The ranks that have files in `share`.
    fn ranks_of(&self, share: &Range<u64>) -> &'a [u32] {
        let ends = &self.starts[1..];
        let from = ends.partition_point(|end| *end <= share.start);
        let to = self.starts[..ends.len()].partition_point(|start| *start < share.end);
        self.ranks.get(from..to).unwrap_or_default()
    }

    /// Where the file of `place` begins.
    fn start(&self, destination: &Catalog, place: Place) -> u64 {
        let number = self.ranks.partition_point(|rank| *rank < place.rank);
        if place.file == 0 {
            return self.starts[number];
        }
        let files = destination.ranks.get(&place.rank);
        let before = files.into_iter().flatten().take(place.file as usize);
        self.starts[number] + before.map(file_weight).sum::<u64>()
    }

    /// Where the tensor at `place` begins, and its length.
    fn extent(&self, destination: &Catalog, place: Place) -> (u64, u64) {
        let start = self.start(destination, place);
        let entry = destination.entry(place);
        let first = entry.segments.first().map_or(0, |segment| segment.start);
        (start + first, entry.bytes())
    }
}

/// A file counts one byte more than it has, so that every tensor of it, even an empty one at its end,
/// begins inside.
fn file_weight(file: &ShardFile) -> u64 {
    file.schema.size + 1
}

/// The nodes that see a source cell, ascending.
type Seers = Rc<Vec<u32>>;

/// What is known of who sees a tensor's sources.
#[derive(Default)]
struct Known {
    /// Address of the tensor's plan: this is of one tensor at a time.
    tensor: usize,
    /// By the number of the piece, and the source's cell.
    cells: HashMap<(usize, Cell), Seers>,
    /// Of the first and the last cell of a window those elements that were found to be alike.
    runs: [Option<(Cell, Range<u64>, Seers)>; 2],
}

/// Which cell of a window.
#[derive(Clone, Copy)]
enum Which {
    First,
    Last,
    Another,
}

/// Dealing to the nodes that see the sources.
struct Local<'a> {
    reach: &'a Reach,
    source: &'a Catalog,
    /// Bytes of the site's files that fall to one process before it is another's turn.
    turn_bytes: u64,
    /// Place of this process, or thread, among those of its node.
    lane: u64,
    /// Threads of each process.
    threads: u64,
    /// This node.
    here: Seers,
    /// Bytes dealt so far to those nodes in turn.
    dealt: RefCell<HashMap<Seers, u64>>,
    known: RefCell<Known>,
}

impl<'a> Local<'a> {
    /// None where it makes no difference: all nodes see the same, or have destinations of their own.
    fn of(work: &Work<'a>, files: &Files<'_>) -> Option<Self> {
        let (reach, site) = (work.reach, work.site);
        if !site.everybody || reach.all_see_all() || reach.mode != ExchangeMode::Auto {
            return None;
        }
        let threads = site.processes / u32::try_from(reach.node_of.len()).ok()?;
        let members = &reach.nodes[reach.node() as usize];
        let place = members.iter().position(|m| *m == reach.process)? as u64;
        Some(Local {
            reach,
            source: work.source,
            turn_bytes: (files.bytes() / u64::from(site.processes) / TURNS).max(SLAB_BYTES),
            lane: place * u64::from(threads) + u64::from(site.index % threads),
            threads: u64::from(threads),
            here: Rc::new(vec![reach.node()]),
            dealt: RefCell::default(),
            known: RefCell::default(),
        })
    }

    /// Whether the window falls here; `None` if no node sees more of it than any other.
    fn takes(&self, window: &Window<'_>) -> Option<bool> {
        Some(self.node_takes(window)? && self.lane_takes(window))
    }

    /// Whether the window falls to this node; `None` if no node sees more of it than any other.
    fn node_takes(&self, window: &Window<'_>) -> Option<bool> {
        let nodes = self.best(window)?;
        if nodes.len() == self.reach.nodes.len() {
            return None;
        }
        let place = match nodes.len() {
            1 => 0,
            count => self.turn(nodes.clone(), window) % count as u64,
        };
        Some(nodes[usize::try_from(place).ok()?] == self.reach.node())
    }

    /// Whether a window of this node falls to this process, or thread.
    fn lane_takes(&self, window: &Window<'_>) -> bool {
        let lanes = self.reach.nodes[self.reach.node() as usize].len() as u64 * self.threads;
        self.turn(Rc::clone(&self.here), window) % lanes == self.lane
    }

    /// Whose turn it is among `nodes`, counted on without end.
    fn turn(&self, nodes: Seers, window: &Window<'_>) -> u64 {
        let dealt = &mut *self.dealt.borrow_mut();
        let dealt = dealt.entry(nodes).or_default();
        let before = *dealt;
        *dealt += window.weight();
        before / self.turn_bytes
    }

    /// Whether others see all of `cells`, and this node doesn't.
    fn passes_by(&self, plan: &TensorPlan, cells: &[Cell]) -> Option<bool> {
        let elements = plan.cell_bytes() / plan.element_bytes;
        let end = elements.checked_sub(1)?;
        let first = self.seers(plan, cells.first()?, 0, Which::First)?;
        let last = self.seers(plan, cells.last()?, end, Which::Last)?;
        let known = self.known.borrow();
        let mut runs = known.runs.iter().zip([cells.first(), cells.last()]);
        let whole = runs.all(|(known, cell)| {
            let known = known.as_ref();
            known.is_some_and(|(of, run, _)| Some(of) == cell && *run == (0..elements))
        });
        let here = first.binary_search(&self.reach.node()).is_ok();
        Some(whole && first == last && !here)
    }

    /// The nodes that see most of the window.
    fn best(&self, window: &Window<'_>) -> Option<Seers> {
        let (plan, cells) = (window.plan, window.cells);
        let begin = window.bytes.start / plan.element_bytes;
        let end = window.bytes.end / plan.element_bytes;
        let last = end.checked_sub(1)?;
        let one = self.seers(plan, cells.first()?, begin, Which::First)?;
        let other = self.seers(plan, cells.last()?, last, Which::Last)?;
        if one == other {
            return Some(one);
        }
        let count = cells.len() as u64;
        let elements = end - begin;
        let mut seen: Vec<(u32, u64)> = Vec::new();
        for probe in 0..PROBES {
            let place = portion(elements * count, 2 * probe + 1, 2 * PROBES);
            let cell = cells.get(usize::try_from(place / elements).ok()?)?;
            for node in self
                .seers(plan, cell, begin + place % elements, Which::Another)?
                .iter()
            {
                match seen.iter_mut().find(|(known, _)| known == node) {
                    Some((_, times)) => *times += 1,
                    None => seen.push((*node, 1)),
                }
            }
        }
        let most = seen.iter().map(|(_, times)| *times).max()?;
        seen.retain(|(_, times)| *times == most);
        let mut best: Vec<u32> = seen.into_iter().map(|(node, _)| node).collect();
        best.sort_unstable();
        Some(Rc::new(best))
    }

    /// The nodes that see what element `number` of `cell` is made of; `None` if none does.
    fn seers(&self, plan: &TensorPlan, cell: &Cell, number: u64, which: Which) -> Option<Seers> {
        let known = &mut *self.known.borrow_mut();
        let tensor = std::ptr::from_ref(plan).addr();
        if known.tensor != tensor {
            *known = Known {
                tensor,
                ..Known::default()
            };
        }
        let Known { cells, runs, .. } = known;
        let run = match which {
            Which::First => Some(&mut runs[0]),
            Which::Last => Some(&mut runs[1]),
            Which::Another => None,
        };
        if let Some(Some((of, run, seers))) = &run
            && of == cell
            && run.contains(&number)
        {
            return Some(seers.clone()).filter(|seers| !seers.is_empty());
        }
        let region = plan.destination.grid.region(cell);
        let element = element(&region, number);
        let mut pieces = plan.pieces.iter().enumerate();
        let (seers, alike) = pieces.find_map(|(number, (piece, tensor))| {
            let ranges = Piece::cut(&piece.ranges(), &piece.destination_map, &element)?;
            let from = Piece::image(&ranges, &piece.source_map);
            let grid = &tensor.spreads.first()?.grid;
            let places = from.offset.iter().zip(&grid.cell_shape().0);
            let source: Cell = places.map(|(offset, size)| offset / size).collect();
            let alike = rows_alike(piece, &grid.region(&source), &region);
            let seers = cells.entry((number, source));
            let seers =
                seers.or_insert_with_key(|(_, source)| Rc::new(self.see(tensor, source, &from)));
            Some((seers.clone(), alike))
        })?;
        if let (Some(run), Some(alike)) = (run, alike) {
            *run = Some((cell.clone(), alike, seers.clone()));
        }
        Some(seers).filter(|seers| !seers.is_empty())
    }

    /// The nodes that see a copy of what lies at `element` of `tensor`, which is in `cell` of its first
    /// stage.
    fn see(&self, tensor: &SourceTensor, cell: &[u64], element: &Region) -> Vec<u32> {
        let mut nodes: Vec<u32> = Vec::new();
        for (stage, spread) in tensor.spreads.iter().enumerate() {
            let mut here = |cell: &[u64]| {
                let holders = spread.holders(cell);
                let holders = holders.filter(|r| self.source.find(*r, &tensor.name).is_some());
                for node in holders.flat_map(|rank| self.reach.homes(rank)) {
                    if nodes.last() != Some(node) {
                        nodes.push(*node);
                    }
                }
            };
            match stage {
                0 => here(cell),
                _ => spread.grid.for_each_meeting(element, here),
            }
            // What is built here is taken from the first stage that has it.
            if !nodes.is_empty() {
                break;
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// Element `number` of a cell that covers `region`, counted row-major.
fn element(region: &Region, number: u64) -> Region {
    let mut offset = region.offset.clone();
    let mut rest = number;
    for (offset, size) in offset.iter_mut().zip(&region.shape.0).rev() {
        *offset += rest % size;
        rest /= size;
    }
    Region {
        shape: Shape(vec![1; offset.len()]),
        offset,
    }
}

/// The elements of a cell covering `cell`, counted row-major, that `piece` brings from the shard covering
/// `shard`, if these are whole rows of it.
fn rows_alike(piece: &Piece, shard: &Region, cell: &Region) -> Option<Range<u64>> {
    let ranges = Piece::cut(&piece.ranges(), &piece.destination_map, cell)?;
    let ranges = Piece::cut(&ranges, &piece.source_map, shard)?;
    let part = Piece::image(&ranges, &piece.destination_map);
    let brought: u64 = ranges.iter().map(|range| range.end - range.start).product();
    let (rows, row) = part.shape.0.split_first()?;
    if row != &cell.shape.0[1..] || brought != part.shape.0.iter().product::<u64>() {
        return None;
    }
    let row: u64 = row.iter().product();
    let begin = (part.offset[0] - cell.offset[0]) * row;
    Some(begin..begin + rows * row)
}
