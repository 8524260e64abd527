//! What was read of source tensors, where nothing is kept of what is written.

use crate::fault::Result;
use crate::plan::arrange::Kept;
use crate::plan::work::Slab;
use crate::tensor::digest::Joiner;
use crate::transport::sink::Sink;
use crate::transport::traced::{self, Sums, Traced};
use crate::transport::witness::{Entered, Witness, counts};
use std::sync::{Mutex, PoisonError};

/// Sums what is read of the tensors that are traced.
pub(crate) struct Proofs<'a> {
    traced: &'a Traced,
    kept: &'a Kept,
    /// Whether what this process takes counts.
    counts: bool,
    sums: Mutex<Sums>,
}

impl<'a> Proofs<'a> {
    /// Nothing yet; of each cell the first that is `kept` counts, and of its processes the one that is
    /// told so.
    pub(crate) fn new(traced: &'a Traced, kept: &'a Kept, counts: bool) -> Self {
        Proofs {
            traced,
            kept,
            counts,
            sums: Mutex::default(),
        }
    }

    /// All that was read.
    pub(crate) fn sums(self) -> Sums {
        let sums = self.sums.into_inner();
        sums.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Proofs<'_> {
    fn read(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        with: (&mut Joiner, &mut Vec<u8>),
        entered: &mut Entered,
    ) -> Result<()> {
        if self.counts && counts(self.kept, slab, cell) {
            self.traced
                .note(slab, cell, tile, with, &mut entered.traced)?;
        }
        Ok(())
    }

    fn written(
        &self,
        _: &Slab<'_>,
        _: usize,
        _: &[u8],
        _: &mut Joiner,
        _: &mut Entered,
    ) -> Result<()> {
        Ok(())
    }

    fn enter(&self, _: &Slab<'_>, entered: Entered, _: &dyn Sink) -> Result<()> {
        if !entered.traced.is_empty() {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            traced::add(&mut sums, &entered.traced);
        }
        Ok(())
    }
}
