//! Where several nodes need the same source bytes of files that they share: each reads them, or they
//! read in turn and send each other what they have read, whichever takes less time.

use crate::layout::Cell;
use crate::plan::kept::Kept;
use crate::plan::machine::Machine;
use crate::plan::ratio::ratio;
use crate::plan::tensor_plan::TensorPlan;
use std::collections::{BTreeMap, BTreeSet};

/// Shorter runs of a row are not read alone: storage that nodes share is asked for the whole row.
const RUN_BYTES_ALONE: u64 = 16 << 10;

/// The nodes that read a unit of cells' source in turn for each other, slab by slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// These, ascending; two at least.
    pub nodes: Vec<u32>,
    /// Cells that any of them needs, each counted once.
    pub wanted: u64,
    /// Cells that they need, each counted once for every site that builds it.
    pub needed: u64,
}

impl Turns {
    /// Of `bytes` that those who need them need together, what is read.
    #[must_use]
    pub fn read_bytes(&self, bytes: u64) -> u64 {
        let read = u128::from(bytes) * u128::from(self.wanted) / u128::from(self.needed.max(1));
        u64::try_from(read).unwrap_or(u64::MAX)
    }
}

/// Those that build a destination rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Number of their site.
    pub site: u32,
    /// Their node.
    pub node: u32,
}

/// Where all destination ranks are built, and what it costs to bring bytes there.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// By destination rank; empty if all are built on one node, or by all processes.
    pub homes: &'a [Home],
    /// Which of a cell's holders have it in their files.
    pub kept: &'a Kept,
    /// What the nodes and their storage can do.
    pub machine: &'a Machine,
}

impl Sharing<'_> {
    /// Who takes turns to read what `cells` of `plan`, neighbours in a row, are made of; none if one
    /// node needs it, or if it takes less time that each reads for itself.
    ///
    /// Read by each: the sum of what the nodes read through the storage they share, or the most that
    /// one reads. In turn: the same with each byte read once, then the most that a node receives
    /// through its network.
    #[must_use]
    pub fn turns(&self, plan: &TensorPlan, cells: impl Iterator<Item = Cell>) -> Option<Turns> {
        if self.homes.is_empty() {
            return None;
        }
        let mut at_site: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut at_node: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut all, mut wanted) = (0, 0);
        for cell in cells {
            let keepers = self.kept.keepers(plan, &cell);
            let homes: BTreeSet<(u32, u32)> = keepers
                .filter_map(|rank| self.homes.get(rank as usize))
                .map(|home| (home.node, home.site))
                .collect();
            let mut last = None;
            for home in &homes {
                *at_site.entry(*home).or_default() += 1;
                if last.replace(home.0) != Some(home.0) {
                    *at_node.entry(home.0).or_default() += 1;
                }
            }
            all += 1;
            wanted += u64::from(!homes.is_empty());
        }
        let nodes: Vec<u32> = at_node.keys().copied().collect();
        let needed = at_site.values().sum();
        if nodes.len() < 2 {
            return None;
        }
        let whole_rows = all > 1 && row_bytes(plan) < RUN_BYTES_ALONE;
        let read = |cells: u64| if whole_rows { all } else { cells };
        let by_each: u64 = at_node.values().map(|cells| read(*cells)).sum();
        let by_one = at_node.values().map(|cells| read(*cells)).max();
        let mut received: BTreeMap<u32, u64> = BTreeMap::new();
        for ((node, _), cells) in &at_site {
            *received.entry(*node).or_default() += cells;
        }
        let received = received.into_values().max().unwrap_or_default();
        let count = nodes.len() as u64;
        let machine = self.machine;
        let reading = |together: f64, one: f64| {
            (together / machine.shared_read_gbps).max(one / machine.disk_read_gbps)
        };
        let each = reading(ratio(by_each, 1), ratio(by_one.unwrap_or_default(), 1));
        let once = reading(ratio(read(wanted), 1), ratio(read(wanted), count));
        let sent = ratio(received * (count - 1), count) / machine.network_gbps;
        (once + sent < each).then_some(Turns {
            nodes,
            wanted,
            needed,
        })
    }
}

/// Bytes of a cell's part of a row of cells.
fn row_bytes(plan: &TensorPlan) -> u64 {
    let cell = &plan.destination.grid.cell_shape().0;
    let parts = plan.destination.grid.parts();
    // What follows the last dimension that is cut is contiguous.
    let last = parts.iter().rposition(|parts| *parts > 1).unwrap_or(0);
    cell.iter().skip(last).product::<u64>() * plan.element_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::plan::spread::Spread;
    use crate::tensor::dtype::Dtype;
    use crate::tensor::quantise::Form;
    use crate::tensor::shape::Shape;
    use std::sync::Arc;

    /// A tensor of `shape` over `mesh`, and all cells of its first row of cells.
    fn tensor(shape: &[u64], mesh: &[u64], map: &[Vec<i64>]) -> (TensorPlan, Vec<Cell>) {
        let layout = Arc::new(Layout::new(mesh, map, None).unwrap());
        let row = layout.parts()[1..].iter().product::<u64>();
        let shape = Shape(shape.to_vec());
        let plan = TensorPlan {
            name: "w".into(),
            dtype: Dtype::F32,
            written: Dtype::F32,
            form: Form::Elements,
            element_bytes: 4,
            destination: Spread::new(0, layout, &shape, Dtype::F32).unwrap(),
            pieces: Vec::new(),
            zeros_from: None,
        };
        (plan, (0..row).map(|column| vec![0, column]).collect())
    }

    /// Two ranks a node, each node a site.
    fn homes(ranks: u32) -> Vec<Home> {
        let node = |rank| rank / 2;
        (0..ranks)
            .map(|rank| Home {
                site: node(rank),
                node: node(rank),
            })
            .collect()
    }

    fn turns(machine: &Machine, homes: &[Home], made: (TensorPlan, Vec<Cell>)) -> Option<Turns> {
        let sharing = Sharing {
            homes,
            kept: &Kept::default(),
            machine,
        };
        sharing.turns(&made.0, made.1.into_iter())
    }

    #[test]
    fn copies_are_read_in_turn_unless_the_network_is_slow() {
        let copies = || tensor(&[8, 8], &[2, 2], &[vec![0], vec![-1]]);
        let homes = homes(4);
        let found = turns(&Machine::default(), &homes, copies()).unwrap();
        assert_eq!((found.wanted, found.needed), (1, 2));
        assert_eq!(found.nodes, [0, 1]);
        assert_eq!(found.read_bytes(100), 50);
        // Reading twice at 10: 0.2. Once and half of it sent: 0.1 + 0.5 / rate.
        let network = |network_gbps| Machine {
            network_gbps,
            ..Machine::default()
        };
        assert!(turns(&network(5.1), &homes, copies()).is_some());
        assert!(turns(&network(4.9), &homes, copies()).is_none());
    }

    #[test]
    fn what_one_node_needs_it_reads() {
        let cut = tensor(&[8, 8], &[4], &[vec![0], vec![-1]]);
        assert_eq!(turns(&Machine::default(), &homes(4), cut), None);
        // Where all processes write to one place, each cell is built once.
        let copies = tensor(&[8, 8], &[2, 2], &[vec![0], vec![-1]]);
        assert_eq!(turns(&Machine::default(), &[], copies), None);
    }

    #[test]
    fn short_columns_of_the_same_rows_are_read_in_turn() {
        let columns = |width| tensor(&[8, width], &[4], &[vec![-1], vec![0]]);
        let homes = homes(4);
        let found = turns(&Machine::default(), &homes, columns(64)).unwrap();
        assert_eq!((found.wanted, found.needed), (4, 4));
        assert_eq!(found.read_bytes(100), 100);
        // Long ones are read alone.
        assert_eq!(turns(&Machine::default(), &homes, columns(1 << 14)), None);
    }
}
