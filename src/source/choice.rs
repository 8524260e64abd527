//! Which of the files in rank directories are read: chosen once, from what all nodes see together.

use crate::exchange::{Topology, World};
use crate::fault::{Fault, Kind, Result};
use crate::source::directory::check_alone;
use crate::source::full::both_formats;
use crate::source::latest::{latest, passed_over};
use crate::source::listed::{Listed, Listing};
use crate::source::listing::list;
use crate::source::meta::{Name, weights_of_ranks};
use crate::source::position::choose::choose_of;
use crate::source::position::{Asked, Chosen, Offered};
use crate::source::reading::Weights;
use crate::source::saved::Survey;
use crate::source::survey::{survey, survey_alone};
use crate::store::Format;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// The `--file-suffix` that means what `shardloom checkpoints latest` gives.
pub(crate) const LATEST: &str = "latest";

/// Which position a job wants.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// The newest.
    Newest,
    /// That with this ending.
    Suffix(String),
    /// That one.
    Saved(Name),
}

impl Wanted {
    /// What `suffix` means for the checkpoints at `path`. Collective.
    ///
    /// # Errors
    /// The same on every process: as [`survey`] and [`latest`] where the latest is asked for.
    pub(super) fn of(
        world: &World,
        topology: &Topology,
        path: &Path,
        suffix: Option<&str>,
    ) -> Result<Wanted> {
        match suffix {
            None => return Ok(Wanted::Newest),
            Some(LATEST) => {}
            Some(suffix) => return Ok(Wanted::Suffix(suffix.to_owned())),
        }
        let survey = survey(world, topology, path, None, true)?;
        Wanted::latest(&survey, path, world.process() == 0)
    }

    /// The latest that `survey` found at `path`; says if it is of an older run, where `tells`. Local.
    fn latest(survey: &Survey, path: &Path, tells: bool) -> Result<Wanted> {
        let found = latest(survey)?;
        if let Some(note) = passed_over(survey, found).filter(|_| tells) {
            tracing::warn!("{}: {note}", path.display());
        }
        let name = found.name.clone();
        if survey.directory != path {
            let message = "its rank directories are in the directory `checkpoint`";
            let fault = Fault::new(Kind::MissingShard, message).file(path.display().to_string());
            return Err(fault.hint(format!("give {}", survey.directory.display())));
        }
        Ok(if name.iteration {
            Wanted::Suffix(name.step.to_string())
        } else {
            Wanted::Saved(name)
        })
    }

    /// The ending, where that is what is wanted.
    pub(super) fn suffix(&self) -> Option<&str> {
        match self {
            Wanted::Suffix(suffix) => Some(suffix),
            _ => None,
        }
    }

    fn asked(&self) -> Asked<'_> {
        match self {
            Wanted::Newest => Asked::Newest,
            Wanted::Suffix(suffix) => Asked::Suffix(suffix),
            Wanted::Saved(name) => Asked::Saved(name),
        }
    }
}

/// Chooses from what all nodes offer, of a job of so many `ranks` where that is known; none if they offer nothing. The same on every process that has
/// the same listings. Local.
///
/// # Errors
/// As [`choose`]; [`Kind::Ambiguous`] if there are files of both formats.
pub(super) fn choose_from<'a>(
    listings: impl Iterator<Item = &'a Listing>,
    path: &Path,
    wanted: &Wanted,
    ranks: Option<u32>,
) -> Result<Option<Chosen>> {
    let mut offered = Offered::new();
    for (rank, files) in listings.flat_map(|listing| &listing.offered) {
        offered
            .entry(*rank)
            .or_default()
            .extend(files.iter().cloned());
    }
    for files in offered.values_mut() {
        files.sort_unstable();
        files.dedup();
    }
    // What only may be weights is none where a rank, this or another, has some that are.
    let all = offered.values().flatten().map(String::as_str);
    let weights: HashSet<&str> = weights_of_ranks(all.clone()).into_iter().collect();
    let formats = weights.iter().filter_map(|file| Format::spoken_of(file));
    let formats: BTreeSet<&str> = formats.map(Format::extension).collect();
    let others = all.filter(|file| !weights.contains(file));
    let others: HashSet<String> = others.map(str::to_owned).collect();
    if !others.is_empty() {
        offered.retain(|_, files| {
            files.retain(|file| !others.contains(file));
            !files.is_empty()
        });
    }
    if offered.is_empty() {
        return Ok(None);
    }
    if formats.len() > 1 {
        let files = offered.values().flatten();
        return Err(both_formats(path, files.map(String::as_str)));
    }
    let chosen = choose_of(&offered, wanted.asked(), ranks);
    chosen.map(Some).map_err(|mut fault| {
        let file = fault.file.take();
        let file = file.map_or_else(|| path.to_path_buf(), |file| path.join(file));
        fault.file(file.display().to_string())
    })
}

/// What a job of one process would read at `path`, and what there was to choose from. Local.
///
/// # Errors
/// As [`list`] and [`choose_from`].
pub(crate) fn chosen(path: &Path, suffix: Option<&str>, weights: Option<&str>) -> Result<Listing> {
    let wanted = match suffix {
        None => Wanted::Newest,
        Some(LATEST) => Wanted::latest(&survey_alone(path)?, path, true)?,
        Some(suffix) => Wanted::Suffix(suffix.to_owned()),
    };
    let weights = Weights::named(weights.map(str::to_owned), Weights::Told);
    let mut listing = list(path, wanted.suffix(), &weights)?;
    match choose_from([&listing].into_iter(), path, &wanted, None)? {
        Some(chosen) => {
            for (rank, file) in chosen.files {
                listing.ranks.insert(rank, vec![Listed::new(path, file)?]);
            }
        }
        None => check_alone(path, &listing)?,
    }
    Ok(listing)
}
