//! Tensors that the source's strategy has, and no file.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::job::spec::Write;
use crate::plan::affix::Affixes;
use crate::plan::build::{Build, Select, Unmatched};
use crate::plan::state::{is_state, state_and_tensor};
use crate::source::Opened;
use crate::source::fragment::named_for;
use crate::source::meta::TRAINABLE;
use crate::store::whole::{ranges, spelled};
use crate::strategy::StrategyInput;
use crate::strategy::ends::{MODELS, is_first, is_further, layer};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Most tensors that a message names.
const NAMED: usize = 3;

/// Refuses a source of which tensors lack that its strategy has and that are `needed`: of a layer or an expert what
/// others have, weights or states, and tensors of which the states are there. What no layer has is no loss (moments,
/// where only weights were saved); nor is what a trainer leaves out of files of those weights that it trains. Of a
/// strategy that was derived nobody knows which weights were trained: all states of one may lack, and no weight.
/// `whole` are full weights of which no file was chosen: of a model's layers none may lack before the last, nor all that
/// stands behind it.
/// Local; what it looks at is the same on every process.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first ones.
pub(super) fn refuse(
    opened: &Opened,
    affixes: &Affixes,
    (given, unmatched, whole): (Option<&StrategyInput>, Unmatched, bool),
    needed: impl Fn(&str) -> bool,
) -> Result<()> {
    let inventory = &opened.inventory;
    let may_lack_stages = may_lack_stages(opened, given);
    let whole = whole && opened.source.told.is_none();
    let nothing = inventory.without_data.is_empty() && !may_lack_stages && !whole;
    if nothing || is_of_trained(opened) {
        return Ok(());
    }
    let names = inventory.tensors.keys().chain(&inventory.private);
    let there: HashSet<String> = names.map(|name| affixes.of(name)).collect();
    let lacks = inventory.without_data.iter();
    let lacks = lacks.map(|name| (name, affixes.of(name)));
    let lacks = lacks.filter(|(_, name)| !there.contains(name) && needed(name));
    let lacks: Vec<(&Arc<str>, String)> = lacks.collect();
    let lacks = lost(&there, lacks, given, unmatched);
    let base = &opened.source.base;
    if lacks.is_empty() && (may_lack_stages || whole) {
        let end_may_lack = may_lack_stages || ends_in_layers(&there);
        return not_cut_short(&there, end_may_lack, needed)
            .map_err(|fault| fault.file(base.display().to_string()));
    }
    let found = told(&lacks, ["source", "no rank has"]).map(|fault| {
        fault.file(base.display().to_string()).hint(
            "are all ranks' directories there, and is it the strategy that these files were saved by? --unmatched drop \
             goes on without those tensors",
        )
    });
    found.map_or(Ok(()), Err)
}

/// Whether a strategy of the first pipeline stages alone may be all that is known of these ranks: it isn't derived from
/// the model, and no manifest keeps the layout.
fn may_lack_stages(opened: &Opened, given: Option<&StrategyInput>) -> bool {
    let derived = given.is_some_and(|given| given.bytes().is_some());
    let source = &opened.source;
    let mut files = source.catalog.ranks.values().flatten();
    let ranks = source.catalog.ranks.len() > 1
        || files.any(|file| named_for(&source.base.join(&file.path)).is_some());
    ranks && !derived && opened.laid.is_none() && opened.source.told.is_none()
}

/// Whether full weights have nothing but layers and what stands before them: some models call otherwise what stands behind.
fn ends_in_layers(there: &HashSet<String>) -> bool {
    let weights = there.iter().filter(|name| !is_state(name));
    let mut others = weights.filter(|name| name.contains('.') && layer(name).is_none());
    others.all(|name| is_first(name) == Some(true))
}

/// Refuses what a trainer's names show to be some of a model's pipeline stages, whose strategies tell nothing of the
/// others: layers between others that aren't there, or, where the end may lack, the embedding of the first stage and
/// layers, and neither the norm behind the last layer nor the head. Of what is `needed`. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming what lacks.
fn not_cut_short(
    there: &HashSet<String>,
    end_may_lack: bool,
    needed: impl Fn(&str) -> bool,
) -> Result<()> {
    for [embedding, layers, norm, head] in &MODELS {
        let before = |own: &str| {
            let found = there.iter().filter_map(|name| name.strip_suffix(own));
            let found = found.filter(|before| before.is_empty() || before.ends_with('.'));
            // A state's name goes on before that of its tensor; the same on every process.
            found.min_by_key(|before| (before.len(), *before))
        };
        let begins = before(embedding);
        let Some(before) = begins.or_else(|| before(norm)) else {
            continue;
        };
        let (layers, norm) = (format!("{before}{layers}"), format!("{before}{norm}"));
        let numbers = there.iter().filter_map(|name| {
            let (number, _) = name.strip_prefix(&layers)?.split_once('.')?;
            number.parse().ok()
        });
        let numbers: BTreeSet<u32> = numbers.collect();
        let Some(last) = numbers.last() else { continue };
        let lacks =
            |number: &u32| !numbers.contains(number) && needed(&format!("{layers}{number}."));
        let lacks: Vec<u32> = (0..*last).filter(lacks).collect();
        let head = [format!("{before}{head}"), (*head).to_owned()];
        let ends = there.contains(&norm) || head.iter().any(|name| there.contains(name));
        let message = if !lacks.is_empty() {
            format!(
                "has {layers}{last} and no layer {}",
                spelled(&ranges(lacks))
            )
        } else if end_may_lack && begins.is_some() && !ends && needed(&norm) {
            format!(
                "has {before}{embedding} and {}, and nothing behind the last layer, {norm}",
                layers.trim_end_matches('.')
            )
        } else {
            continue;
        };
        let message = format!("{message}: are other pipeline stages missing?");
        return Err(Fault::new(Kind::MissingShard, message).hint(
            "bring together all stages' rank directories and strategies; --unmatched drop goes on with what is there",
        ));
    }
    Ok(())
}

/// That the strategy of a side has these tensors, which are not there; none if there are none.
fn told(lacks: &[&str], [side, who]: [&str; 2]) -> Option<Fault> {
    let count = counted(lacks.len() as u64, "tensor");
    let message = format!(
        "the {side} strategy has {count} that {who}: {}",
        first(lacks, NAMED)
    );
    (!lacks.is_empty()).then(|| Fault::new(Kind::MissingShard, message))
}

/// Refuses to write by a strategy that has weights for which the source has nothing: of a layer or an expert what it has
/// of others. Of a strategy that was derived from the model nothing else may lack either. States may: not every
/// job saves all of them. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first ones.
pub(super) fn refuse_unfilled(
    write: &Write,
    select: &Select,
    opened: &Opened,
    build: &Build,
) -> Result<()> {
    let Some(strategy) = &write.writing.strategy else {
        return Ok(());
    };
    let unmatched = write.leftovers.unmatched();
    let drops = unmatched == Unmatched::Drop;
    if build.without_data.is_empty() || drops || is_of_trained(opened) {
        return Ok(());
    }
    let made = build.stages.iter().flatten();
    let there: HashSet<String> = made.map(|plan| plan.name.to_string()).collect();
    let lacks = build.without_data.iter();
    let lacks = lacks.filter(|name| select.keeps(name) && !is_state(name));
    let lacks: Vec<_> = lacks.map(|name| (name, name.to_string())).collect();
    let lacks = lost(&there, lacks, Some(strategy), unmatched);
    let found = told(&lacks, ["destination", "the source lacks"]).map(|fault| {
        fault.file(strategy.to_string()).hint(
            "is all of the source there, and is it of the same model? --unmatched drop goes on without those tensors, and \
             without what the strategy doesn't know; --unmatched copy keeps that, and goes on without a head or a norm",
        )
    });
    found.map_or(Ok(()), Err)
}

/// Whether a trainer has left out what it doesn't train.
fn is_of_trained(opened: &Opened) -> bool {
    let paths = opened.source.catalog.paths();
    paths.iter().all(|path| path.contains(TRAINABLE.1))
}

/// Of what `lacks` beside what is `there`, as the strategy calls it and as it was meant, what others of its kind, its
/// states or the model show to be lost.
fn lost<'a>(
    there: &HashSet<String>,
    lacks: Vec<(&'a Arc<str>, String)>,
    by: Option<&StrategyInput>,
    unmatched: Unmatched,
) -> Vec<&'a str> {
    let derived = by.is_some_and(|by| by.bytes().is_some());
    let is_due = |name: &str| {
        let shape = by.and_then(|by| by.shapes().get(name));
        shape.is_some_and(|shape| shape.due)
    };
    let kinds: HashSet<String> = there.iter().filter_map(|name| kind(name)).collect();
    let states = there.iter().map(|name| state_and_tensor(name));
    let states = states.filter(|(state, _)| !state.is_empty());
    let (saved, with_states): (HashSet<&str>, HashSet<&str>) = states.unzip();
    let lost = |called: &str, name: &str| {
        let (state, tensor) = state_and_tensor(name);
        let others = with_states.contains(tensor);
        let kind = kind(name);
        let known = kind.as_ref().is_some_and(|kind| kinds.contains(kind));
        // Other heads than the network's are copied, and nothing in its head's place. Layers for further tokens are
        // often left out.
        let chosen = unmatched != Unmatched::Fail && kind.is_none();
        let due = is_due(called) && !chosen && !is_further(name);
        match state.is_empty() {
            true => known || due || others && !chosen,
            // Of the head, the embedding and the last norm each is as other weights have it.
            false if kind.is_none() => others && saved.contains(state),
            false => known && (others || !derived),
        }
    };
    let lacks = lacks
        .into_iter()
        .filter(|(called, name)| lost(called, name));
    lacks.map(|(name, _)| &**name).collect()
}

/// A name with `*` in the place of the numbers of layers and experts; none if it has none.
fn kind(name: &str) -> Option<String> {
    let is_number =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').any(|part| is_number(&part)).then(|| {
        let parts = name
            .split('.')
            .map(|part| if is_number(&part) { "*" } else { part });
        parts.collect::<Vec<_>>().join(".")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_experts_are_of_a_kind() {
        let found = kind("adam_m.layers.3.experts.12.w1");
        assert_eq!(found.as_deref(), Some("adam_m.layers.*.experts.*.w1"));
        assert_eq!((kind("norm.x1.w"), kind("w")), (None, None));
    }
}
