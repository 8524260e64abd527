//! This process's share of the work, cut by bytes and not by file.
//!
//! A [`Site`] is the set of processes that can write the same destination files; who of them builds what,
//! `deal.rs` says, and `walk.rs` visits it. What is written to several files is built once, and its
//! parts in turn by those that have these files.

use crate::catalog::Catalog;
use crate::plan::reach::Reach;
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::turns::Sharing;

pub use crate::plan::division::Division;
pub use crate::plan::site::Site;
pub use crate::plan::slab::{Filled, Skip, Slab, SlabId};

/// Everything a process's share follows from.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The tensors, in file order.
    pub plans: &'a [TensorPlan],
    /// What lies where in the source.
    pub source: &'a Catalog,
    /// What goes where in the destination (the site's ranks at least).
    pub destination: &'a Catalog,
    /// Who shares the work.
    pub site: &'a Site,
    /// Who sees what of the source.
    pub reach: &'a Reach,
    /// What is done already.
    pub skip: &'a Skip,
    /// Where the other ranks are built, if nodes build different ones and may send each other what
    /// they read.
    pub sharing: Option<Sharing<'a>>,
    /// Most windows that a cell is built in: fewer than there are where it is only counted.
    pub windows_max: u64,
}
