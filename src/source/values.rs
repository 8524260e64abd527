//! What a source has beside tensors: said once where it stays behind, and carried as it is where the
//! destination can hold it.

use crate::catalog::Catalog;
use crate::exchange::{World, all_gather_agreed};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::source::found::Source;
use crate::store::formats::Values;
use crate::store::io::ReadFile;
use std::collections::{BTreeMap, BTreeSet};

/// Names told of many.
const TOLD: usize = 3;
/// Most bytes of all values that are carried.
const CARRIED_BYTES_MAX: u64 = 64 << 20;

/// The names of all values that are no tensors.
pub(super) fn names(catalog: &Catalog) -> Vec<String> {
    let schemas = catalog.distinct_schemas();
    let names = schemas.flat_map(|(_, schema)| schema.held.values.keys());
    let names: BTreeSet<&String> = names.collect();
    names.into_iter().cloned().collect()
}

/// What is to be said of values that `becomes` ("stay behind"; of one "stays behind").
fn told(names: &[String], becomes: [&str; 2]) -> Option<String> {
    let what = match names.len() {
        0 => return None,
        1 => ["is no tensor", becomes[0]],
        _ => ["are no tensors", becomes[1]],
    };
    Some(format!(
        "{} ({}) {} and {}; inspect shows what is there",
        counted(names.len() as u64, "value"),
        first(names, TOLD),
        what[0],
        what[1]
    ))
}

/// What is to be said of values that aren't written.
#[must_use]
pub fn left(names: &[String]) -> Option<String> {
    told(names, ["stays behind", "stay behind"])
}

/// What is to be said of values on either side of a comparison.
#[must_use]
pub fn uncompared(names: &[String]) -> Option<String> {
    told(names, ["isn't compared", "aren't compared"])
}

/// The values of a distributed checkpoint, as they lie, on every process. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Io`]; [`Kind::Unsupported`] for more bytes than are carried.
pub(super) fn carried(world: &World, source: &Source) -> Result<Values> {
    let told = source
        .told
        .as_ref()
        .filter(|told| told.format.keeps_values());
    let Some(told) = told else {
        return Ok(Values::default());
    };
    let sizes = told
        .own
        .contents
        .values()
        .flat_map(|content| content.values());
    let total = sizes.fold(0u64, |sum, (_, range)| {
        sum.saturating_add(range.end.saturating_sub(range.start))
    });
    if total > CARRIED_BYTES_MAX {
        let message = format!(
            "its values that are no tensors come to {total} bytes, at most {CARRIED_BYTES_MAX} are carried"
        );
        let fault = Fault::new(Kind::Unsupported, message).file(source.base.display().to_string());
        return Err(fault.hint("another --format leaves them behind, and says so"));
    }
    let all = all_gather_agreed(world, mine(source))?;
    let archives = all.into_iter().flatten().collect();
    let paths = told.own.paths.clone();
    Ok(Values { archives, paths })
}

/// Those in the files that fall to this process. Local.
fn mine(source: &Source) -> Result<Vec<(String, Vec<u8>)>> {
    let contents = source.told.as_ref().map(|told| &told.own.contents);
    let mut found = Vec::new();
    let files = source.catalog.ranks.iter();
    for (rank, file) in files.flat_map(|(rank, files)| files.iter().map(move |f| (rank, f))) {
        if source.reach.owner(*rank) != Some(source.reach.process) {
            continue;
        }
        let is_it = |name: &str| {
            let folder = file.path.strip_suffix(name);
            folder.is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
        };
        let content = contents.and_then(|all| all.iter().find(|(name, _)| is_it(name)));
        let Some((_, content)) = content.filter(|(_, content)| !content.values().is_empty()) else {
            continue;
        };
        let open = ReadFile::open(&source.base.join(&file.path))?;
        for (name, range) in content.values() {
            let at = |fault: Fault| fault.tensor(name.as_str());
            let length = usize::try_from(range.end.saturating_sub(range.start));
            let fits = range.end <= open.size();
            let length = length.ok().filter(|_| fits).ok_or_else(|| {
                let message = format!(
                    "is at bytes {} to {}, the file has {} (truncated?)",
                    range.start,
                    range.end,
                    open.size()
                );
                at(Fault::new(Kind::Corrupt, message)).file(open.path().display().to_string())
            })?;
            let mut bytes = vec![0; length];
            open.read_at(&mut bytes, range.start)?;
            found.push((name.clone(), bytes));
        }
    }
    Ok(found)
}

/// Whether some of `names` are in none of `archives`, which are written.
#[must_use]
pub fn missing(names: &[String], archives: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let missing = names.iter().filter(|name| !archives.contains_key(*name));
    missing.cloned().collect()
}
