//! A source as all processes know it.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::still::Still;
use crate::store::formats::Own;
use crate::store::{Directory, Format};
use crate::strategy::Strategy;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// The layouts that it tells itself, with where it stands, if its format has that.
    pub told: Option<Told>,
    /// How its files stood when they were first looked at.
    pub still: Still,
    /// What is to be said of what was chosen.
    pub notes: Vec<String>,
    /// What it has beside tensors, by name.
    pub values: Vec<String>,
    /// The index of full weights that lie in several files.
    pub index: Option<String>,
    /// Of every file of weights those that the index lists.
    pub indexed: BTreeSet<String>,
}

impl Source {
    /// Paths and sizes of the files that this process's node sees.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&str, u64)> {
        let ranks = self.catalog.ranks.iter();
        let seen = ranks.filter(|(rank, _)| self.reach.sees(**rank));
        let files = seen.flat_map(|(_, files)| files);
        files.map(|file| (file.path.as_str(), file.schema.size))
    }

    /// Gives a fault of the plan, which knows files by their path inside the source, the path that
    /// the user knows.
    #[must_use]
    pub fn place(&self, fault: Fault) -> Fault {
        let mut files = self.catalog.ranks.values().flatten();
        let only = files.next().filter(|_| files.next().is_none());
        match only.filter(|_| fault.file.is_none()) {
            Some(only) => place(&self.base, fault.file(only.path.as_str())),
            None => place(&self.base, fault),
        }
    }

    /// The strategy to read it by: its own, if it tells one, which `given` must agree with. Local.
    ///
    /// # Errors
    /// [`Kind::Strategy`] naming a tensor.
    pub fn strategy(&self, given: Option<Strategy>) -> Result<Option<Strategy>> {
        let own = self.told.as_ref();
        let own = own.and_then(|told| Some((told.format, told.own.strategy.as_ref()?)));
        match (own, given) {
            (None, Some(_)) if self.in_parts() => {
                let called = self.told.as_ref().map_or("it", |told| told.format.called());
                let message =
                    format!("{called} tells its own layout: no source strategy is read with it");
                let fault = Fault::new(Kind::Strategy, message);
                Err(self.place(fault.hint("leave the strategy of this source out")))
            }
            (None, given) => Ok(given),
            (Some((_, own)), None) => Ok(Some(own.clone())),
            (Some((format, own)), Some(given)) => {
                check_same(format, own, &given).map_err(|fault| self.place(fault))?;
                Ok(Some(own.clone()))
            }
        }
    }

    /// Whether its format tells what its files hold: parts of full weights.
    #[must_use]
    pub fn in_parts(&self) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|told| told.format.tells_structure())
    }

    /// Whether its format keeps what is called so apart from the tensors.
    #[must_use]
    pub fn keeps_apart(&self, name: &str) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|told| told.format.apart().contains(&name))
    }
}

/// Gives a fault that knows files by their path inside `base`, or none, the path that the user knows.
pub(crate) fn place(base: &Path, mut fault: Fault) -> Fault {
    let file = fault.file.take();
    let file = file.map_or_else(|| base.to_path_buf(), |file| base.join(file));
    if file.as_os_str().is_empty() {
        // One file in the working directory.
        return fault;
    }
    fault.file(file.display().to_string())
}

/// What a checkpoint tells of itself, and of which format it is.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its format.
    pub format: Directory,
    /// What it tells.
    pub own: Own,
}

/// Checks that two strategies give every rank the same cells of what both know. Local.
fn check_same(format: Directory, own: &Strategy, given: &Strategy) -> Result<()> {
    let text = format.texts().first().map_or("layout", |(name, _)| name);
    let differs = |name: &str| {
        let message =
            format!("the given strategy lays it out otherwise than the checkpoint's own {text}");
        let fault = Fault::new(Kind::Strategy, message).tensor(name);
        let called = format.called();
        fault.hint(format!("{called} needs no source strategy: leave it out"))
    };
    for (name, ours) in own.iter() {
        let Some(theirs) = given.layout_in(name, ours.stage) else {
            continue;
        };
        if !ours.layout.is_cut_like(&theirs.layout) {
            return Err(differs(name));
        }
    }
    Ok(())
}
