//! Which places a job may write to: none that holds what it reads, or what the user stands on.

use crate::catalog::Catalog;
use crate::course;
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::store::hidden::is_left;
use crate::store::io::{self, Standing};
use crate::store::resolved::{lies_in, resolved};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Checks that nothing of what a job reads would go with what it replaces: `destination` is, contains
/// and lies inside none of `inputs` (what each is called, and its path). Nor is or contains it the
/// working directory, the home directory, the run's log or the root. Of a job `in_place` the destination is the
/// source, and keeps what else lies in it. Local.
///
/// # Errors
/// [`Kind::Usage`] naming the destination and the input, [`Kind::Io`].
pub(crate) fn check(
    destination: &Path,
    inputs: &[(&'static str, &Path)],
    in_place: bool,
) -> Result<()> {
    let place = resolved(destination)?;
    let refuse = |message: String| {
        let fault = Fault::new(Kind::Usage, message);
        fault.file(destination.display().to_string())
    };
    if place.parent().is_none() {
        return Err(refuse("is the root directory".into()).hint(ELSEWHERE));
    }
    if is_left(&place) {
        let message =
            "has a name that is kept for what runs leave behind, and would be removed by one";
        return Err(refuse(message.into()).hint("give a name that doesn't end so"));
    }
    for (what, ours) in ours()? {
        if lies_in(&ours, &place) {
            let same = lies_in(&place, &ours);
            let relation = if same { "is" } else { "contains" };
            let hint = match (what, in_place) {
                (LOG, _) => "give --log a file apart from what is written",
                (_, true) => "run it from another directory",
                (_, false) => {
                    "give a directory in it, or another: one that is to be made, or holds nothing else"
                }
            };
            let message = format!("{relation} the {what}, and would be replaced by a new one");
            return Err(refuse(message).hint(hint));
        }
    }
    if in_place {
        return Ok(());
    }
    for (what, input) in inputs {
        let input = resolved(input)?;
        let relation = match (lies_in(&place, &input), lies_in(&input, &place)) {
            (true, true) => "is",
            (false, true) => "contains",
            (true, false) => "lies inside",
            (false, false) => match linked_into(&input, &place)? {
                None => continue,
                Some(link) => {
                    let message = format!("contains the file that {} leads to", link.display());
                    return Err(refuse(message).hint(ELSEWHERE));
                }
            },
        };
        let message = format!("{relation} the {what} ({})", input.display());
        return Err(refuse(message).hint(ELSEWHERE));
    }
    Ok(())
}

/// The first link in the directory `input` that leads to a file in the directory `place`, such as a model's config.json.
/// Local.
fn linked_into(input: &Path, place: &Path) -> Result<Option<PathBuf>> {
    // Where nothing is replaced nothing is looked at.
    let replaced = io::standing(place)? == Standing::Directory;
    if !replaced || io::standing(input)? != Standing::Directory {
        return Ok(None);
    }
    for (name, is_directory) in io::list(input)? {
        let path = input.join(name);
        // What leads nowhere is no file.
        if !is_directory
            && io::link_target(&path)?.is_some()
            && io::size(&path)?.is_some()
            && lies_in(&io::resolve(&path)?, place)
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What the file of the run's messages is called.
const LOG: &str = "log of this run";
const ELSEWHERE: &str = "give a directory apart from what is read";

/// Checks that a file may be written at `output`: it is none of `inputs` (what each is called, and its
/// path), and lies inside none. Local.
///
/// # Errors
/// [`Kind::Usage`] naming the file and the input, [`Kind::Io`].
pub(crate) fn check_file(output: &Path, inputs: &[(&'static str, &Path)]) -> Result<()> {
    let place = resolved(output)?;
    for (what, input) in inputs {
        let input = resolved(input)?;
        if lies_in(&place, &input) {
            let same = lies_in(&input, &place);
            let relation = if same { "is" } else { "lies inside" };
            let message = format!("{relation} the {what} ({})", input.display());
            let fault = Fault::new(Kind::Usage, message).file(output.display().to_string());
            return Err(fault.hint("give a file apart from what is read and written"));
        }
    }
    Ok(())
}

/// The directories and the file that are never replaced.
fn ours() -> Result<Vec<(&'static str, PathBuf)>> {
    let working = std::env::current_dir().ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute());
    let mut all = Vec::new();
    for (what, path) in [("working directory", working), ("home directory", home)] {
        // A home that isn't there, or may not be looked into, as that of another user.
        if let Some(path) = path.filter(|path| path.exists()) {
            all.push((what, io::resolve(&path)?));
        }
    }
    if let Some(log) = course::now().log {
        all.push((LOG, resolved(&log)?));
    }
    Ok(all)
}

/// Checks that no file of the source that this process owns lies in the directory that is replaced,
/// by way of a link. Local.
///
/// # Errors
/// [`Kind::Usage`] naming the file, [`Kind::Io`].
pub(crate) fn check_files(
    destination: &Path,
    base: &Path,
    catalog: &Catalog,
    reach: &Reach,
) -> Result<()> {
    if io::standing(destination)? != Standing::Directory {
        return Ok(());
    }
    let place = io::resolve(destination)?;
    let mut seen = BTreeSet::new();
    for (rank, files) in &catalog.ranks {
        if reach.owner(*rank) != Some(reach.process) {
            continue;
        }
        for file in files {
            let path = base.join(&file.path);
            let is_link = io::link_target(&path)?.is_some();
            let parent = path.parent().unwrap_or(base);
            if !is_link && !seen.insert(parent.to_path_buf()) {
                continue;
            }
            let real = io::resolve(&path)?;
            if lies_in(&real, &place) {
                let message = format!("contains {}, which is read", path.display());
                let fault = Fault::new(Kind::Usage, message);
                let fault = fault.file(destination.display().to_string());
                return Err(fault.hint(ELSEWHERE));
            }
        }
    }
    Ok(())
}
