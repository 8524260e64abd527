//! A source as all processes know it.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::still::Still;
use crate::store::Format;
use crate::store::checkpoint2::Common;
use crate::strategy::Strategy;
use std::path::PathBuf;

/// A source as all processes know it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The directory that the catalog's paths are in.
    pub base: PathBuf,
    /// What lies where.
    pub catalog: Catalog,
    /// Who sees it.
    pub reach: Reach,
    /// Format of its files.
    pub format: Format,
    /// The layouts that it tells itself, with where it stands: a checkpoint 2.0.
    pub iteration: Option<SourceIteration>,
    /// How its files stood when they were first looked at.
    pub still: Still,
    /// What is to be said of what was chosen.
    pub notes: Vec<String>,
}

impl Source {
    /// Gives a fault of the plan, which knows files by their path inside the source, the path that
    /// the user knows.
    #[must_use]
    pub fn place(&self, mut fault: Fault) -> Fault {
        let file = fault
            .file
            .take()
            .map_or_else(|| self.base.clone(), |file| self.base.join(file));
        fault.file(file.display().to_string())
    }

    /// The strategy to read it by: its own, if it tells one, which `given` must agree with. Local.
    ///
    /// # Errors
    /// [`Kind::Strategy`] naming a tensor.
    pub fn strategy(&self, given: Option<Strategy>) -> Result<Option<Strategy>> {
        let own = self
            .iteration
            .as_ref()
            .and_then(|iteration| iteration.strategy.as_ref());
        match (own, given) {
            (None, given) => Ok(given),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(given)) => {
                check_same(own, &given).map_err(|fault| self.place(fault))?;
                Ok(Some(own.clone()))
            }
        }
    }
}

/// What a checkpoint 2.0 tells of itself.
#[derive(Clone, Debug)]
pub struct SourceIteration {
    /// Its layouts; none for a single card's.
    pub strategy: Option<Strategy>,
    /// Where the job stands.
    pub common: Common,
}

/// Checks that two strategies give every rank the same cells of what both know. Local.
fn check_same(own: &Strategy, given: &Strategy) -> Result<()> {
    let differs = |name: &str| {
        Fault::new(
            Kind::Strategy,
            "the given strategy lays it out otherwise than the checkpoint's own metadata.json",
        )
        .tensor(name)
        .hint("a checkpoint 2.0 needs no source strategy: leave it out")
    };
    for (name, ours) in own.iter() {
        let Some(theirs) = given.layout_in(name, ours.stage) else {
            continue;
        };
        let (a, b) = (&ours.layout, &theirs.layout);
        let same = a.ranks() == b.ranks()
            && a.parts() == b.parts()
            && (0..a.ranks()).all(|rank| a.cell(rank) == b.cell(rank));
        if !same {
            return Err(differs(name));
        }
    }
    Ok(())
}
