//! What is said where a source and its strategy have no name in common.

use crate::fault::{Fault, Kind};
use crate::plan::state::is_state;
use crate::strategy::Strategy;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names told of many.
const NAMES_TOLD: usize = 3;

/// The fault of a source none of whose tensors is in its strategy: the names of both, and what
/// differs.
pub(super) fn strangers(first: &str, names: &BTreeSet<Arc<str>>, strategy: &Strategy) -> Fault {
    let list = |names: &mut dyn Iterator<Item = &Arc<str>>| {
        let first: Vec<&str> = names.take(NAMES_TOLD).map(|name| &**name).collect();
        first.join(", ")
    };
    let (here, there) = (list(&mut names.iter()), list(&mut strategy.names()));
    let message = format!(
        "no tensor of the source is in the source strategy: the files have {here}; the strategy has \
         {there}"
    );
    let hint = match beginning(names, strategy) {
        Some((begin, false)) if is_state(&begin) => {
            "the files have what an optimizer keeps, and no weights: give the files that have these"
                .to_owned()
        }
        Some((begin, true)) => format!(
            "the names in the strategy begin with '{begin}', those in the files don't: it was saved \
             of a network that wraps this one; reshard, unify and export read them with --add-prefix {begin}"
        ),
        Some((begin, false)) => format!(
            "the names in the files begin with '{begin}', those in the strategy don't: these files \
             were saved of a network that wraps that one; reshard, unify and export read them with --strip-prefix \
             {begin}"
        ),
        None => "these are names of two families of models, or of two parts of one: is it the \
                 strategy of the job that saved these files?"
            .to_owned(),
    };
    Fault::new(Kind::UnknownTensor, message)
        .tensor(first)
        .hint(hint)
}

/// Whole first parts of names that one side has and the other hasn't; and whether it is the strategy.
fn beginning(names: &BTreeSet<Arc<str>>, strategy: &Strategy) -> Option<(String, bool)> {
    let theirs: BTreeSet<&str> = strategy.names().map(|name| &**name).collect();
    let ours: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
    let longer = |long: &BTreeSet<&str>, short: &BTreeSet<&str>| {
        long.iter().find_map(|name| {
            let dots = name.match_indices('.').map(|(at, _)| at + 1);
            let mut cuts = dots.filter(|at| short.contains(&name[*at..]));
            cuts.next().map(|at| name[..at].to_owned())
        })
    };
    let strategy = longer(&theirs, &ours).map(|begin| (begin, true));
    strategy.or_else(|| longer(&ours, &theirs).map(|begin| (begin, false)))
}
