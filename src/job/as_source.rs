//! Names of files that are kept.

use crate::destination::common_name;
use crate::plan::arrange::Files;
use crate::source::Source;
use crate::source::meta::Name;

/// The files to write where they are called as the source's: as these, if a trainer has saved them, or if their names
/// say more than the rank, as a step.
pub(super) fn write_as_source(files: &Files, source: &Source) -> Option<Files> {
    let Files::AsSource(otherwise) = files else {
        return None;
    };
    let Files::Ranks {
        remove_redundancy, ..
    } = **otherwise
    else {
        return None;
    };
    let of_ranks = &source.catalog.ranks;
    let first = of_ranks.values().next()?.first()?;
    let full = of_ranks.len() == 1 && !first.path.contains('/');
    if full || of_ranks.values().any(|files| files.len() > 1) {
        return None;
    }
    let mut ranks = of_ranks.iter().map(|(rank, files)| {
        let (name, own) = Name::parse(files.first()?.path.rsplit('/').next()?)?;
        (own == Some(*rank) && name.ranked).then_some(name)
    });
    if let Some(first) = ranks.next()?
        && ranks.all(|name| name.as_ref() == Some(&first))
    {
        return Some(first.files(remove_redundancy));
    }
    let name = common_name(&source.catalog)?;
    let mut rest = name.before.chars().chain(name.after.chars());
    rest.any(|c| c.is_ascii_digit()).then_some(Files::Ranks {
        name,
        remove_redundancy,
    })
}
