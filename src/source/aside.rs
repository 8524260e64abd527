//! What is said of files that aren't read, and of those that are.

use crate::fault::plain::first;
use std::collections::BTreeSet;

/// Names told of many.
pub(super) const TOLD: usize = 3;

/// What is said of files of weights that aren't read; how to take them, where nobody has chosen.
pub(super) fn left_aside(taken: &BTreeSet<String>, aside: &[&str], unchosen: bool) -> String {
    let taken = are(&taken.iter().collect::<Vec<_>>());
    left(aside, &taken, unchosen)
}

/// The same where other files are `taken`, as this says with its verb.
pub(super) fn left(aside: &[&str], taken: &str, unchosen: bool) -> String {
    let verb = if aside.len() == 1 { "is" } else { "are" };
    let said = format!("{} {verb} left aside, {taken} taken", first(aside, TOLD));
    match aside {
        [one, ..] if unchosen => format!("{said}; --weights {one} takes that instead"),
        _ => said,
    }
}

/// These files, with their verb.
pub(super) fn are(files: &[&String]) -> String {
    match files {
        [one] => format!("{one} is"),
        files => format!("{} files ({}) are", files.len(), first(files, TOLD)),
    }
}
