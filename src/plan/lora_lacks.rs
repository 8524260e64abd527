//! Whether an adapter's file has what its configuration says that it has.

use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora::Taken;
use crate::plan::lora_experts as experts;
use crate::plan::lora_meaning::Meaning;
use crate::plan::lora_tied::Tied;
use crate::plan::lora_told::{Biases, Told, is_called};
use crate::plan::state::is_state;
use std::collections::BTreeMap;

/// Names told of many.
const TOLD: usize = 3;
/// Part of the names of experts, which may lie in the network otherwise than in an adapter.
const EXPERTS: &str = ".experts.";
/// A tensor that only a layer for further tokens has, which is no part of the network that adapters are trained with.
const FURTHER: &str = "eh_proj.weight";

/// Refuses an adapter whose file lacks what its configuration says that it has. Of a head that is the embedding, too,
/// one of the two is enough. Gives the modules that stay as they are in some layers: PEFT loads such an adapter, too.
///
/// # Errors
/// [`Kind::MissingShard`] naming the key and what lacks.
pub fn check(
    inventory: &Inventory,
    meaning: &Meaning,
    taken: &Taken,
    tied: Option<&Tied>,
) -> Result<Vec<String>> {
    let further = further(inventory);
    let known =
        |name: &str| !is_state(name) && !further.iter().any(|layer| name.starts_with(layer));
    let names = inventory.tensors.keys().map(|name| &**name);
    let names: Vec<&str> = names.filter(|name| known(name)).collect();
    let gaps = check_targets(inventory, &names, &meaning.told, taken, tied);
    let gaps = gaps.map_err(|fault| with_tying(fault, taken, tied))?;
    refuse_unnamed(meaning, taken, tied)?;
    check_parameters(inventory, meaning, taken, known)?;
    check_kept(&names, &meaning.told, taken, tied)?;
    check_biases(&names, meaning.told.biases, taken)?;
    Ok(gaps)
}

/// Says, too, what a pair for an embedding does to a head that is the same.
fn with_tying(mut fault: Fault, taken: &Taken, tied: Option<&Tied>) -> Fault {
    if let Some(tied) = tied.filter(|tied| !tied.parted && taken.merged.contains(&*tied.embedding))
    {
        let more = format!(
            "; its pair for '{}' would change '{}', too, as tie_word_embeddings of config.json is true",
            tied.embedding, tied.head
        );
        fault.message.push_str(&more);
    }
    fault
}

/// The beginnings of the names of layers for further tokens.
fn further(inventory: &Inventory) -> Vec<&str> {
    let names = inventory.tensors.keys();
    let layers = names.filter_map(|name| name.strip_suffix(FURTHER));
    layers.filter(|layer| layer.ends_with('.')).collect()
}

fn check_targets(
    inventory: &Inventory,
    names: &[&str],
    told: &Told,
    taken: &Taken,
    tied: Option<&Tied>,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let one = tied.filter(|tied| !tied.parted);
    let matrices = names.iter().filter_map(|name| {
        let tensor = inventory.tensors.get(*name)?;
        let module = name.strip_suffix(".weight")?;
        let is_other = one.is_some_and(|tied| *tied.head == **name);
        (tensor.shape.0.len() > 1 && told.may_have(module) && !is_other).then_some(module)
    });
    let matrices: Vec<&str> = matrices.collect();
    let has = |module: &str| {
        let weight = format!("{module}.weight");
        taken.merged.contains(&weight) || taken.replaced.contains(&weight)
    };
    for (called, modules) in &told.targets {
        let due = matrices
            .iter()
            .filter(|module| modules.has(module) && told.is_in_layer(called, module));
        let due: Vec<&str> = due.copied().collect();
        // A library may have the experts of a layer in one parameter, and no module for each.
        let alone: Vec<&str> = due
            .iter()
            .filter(|module| !is_expert(module))
            .copied()
            .collect();
        // An expression may be of several.
        let kind = |module: &str| module.rsplit('.').next().map(str::to_owned);
        let mut kinds: BTreeMap<Option<String>, Vec<&str>> = BTreeMap::new();
        for module in &alone {
            kinds.entry(kind(module)).or_default().push(module);
        }
        for module in due.iter().filter(|module| has(module)) {
            kinds.remove(&kind(module));
        }
        let lacking = kinds.first_key_value();
        if let Some((_, lacking)) = lacking {
            let message = format!(
                "the adapter's configuration names '{called}' in target_modules, and there is a pair for none of {}",
                quoted(lacking)
            );
            return Err(lacks(message, "exclude_modules"));
        }
        let partly = gaps(&due, has, &format!("'{called}' in target_modules"));
        let partly = partly.into_iter();
        found.extend(partly.map(|gap| format!("{gap}; what has none stays as it is")));
    }
    Ok(found)
}

/// Refuses pairs of modules that the configuration doesn't name beside others that it names: PEFT doesn't load them. If
/// it names none of them, the names of the network are others than it was trained with.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming the modules.
fn refuse_unnamed(meaning: &Meaning, taken: &Taken, tied: Option<&Tied>) -> Result<()> {
    let told = &meaning.told;
    let is_named = |module: &str| {
        let mut targets = told.targets.iter();
        let named = targets
            .any(|(called, modules)| modules.has(module) && told.is_in_layer(called, module));
        named && told.may_have(module)
    };
    let is_both =
        |name: &str| tied.is_some_and(|tied| [&*tied.head, &*tied.embedding].contains(&name));
    let merged = taken.merged.iter().filter(|name| !is_both(name));
    let is_parameter = |name: &str| {
        let mut targets = meaning.parameters.iter();
        targets.any(|target| is_called(name, target))
    };
    let merged = merged.filter(|name| !is_parameter(name));
    let modules = merged.filter_map(|name| name.strip_suffix(".weight"));
    let modules = modules.filter(|module| !module.contains(EXPERTS));
    let (named, others): (Vec<&str>, Vec<&str>) = modules.partition(|module| is_named(module));
    if told.targets.is_empty() || named.is_empty() || others.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the adapter's file has pairs for {}, which its configuration doesn't name in target_modules: PEFT doesn't load \
         them",
        quoted(&others)
    );
    Err(Fault::new(Kind::UnknownTensor, message).hint(
        "is it this adapter's adapter_config.json? Name them in target_modules, or take them out of the file",
    ))
}

/// What an adapter has for one of several modules, or parameters, `due` that only numbers in their names tell apart, and
/// not for another.
fn gaps(due: &[&str], has: impl Fn(&str) -> bool, what: &str) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in due {
        kinds.entry(kind(name)).or_default().push(name);
    }
    let gap = |(kind, names): (String, Vec<&str>)| {
        let absent: Vec<&str> = names.iter().filter(|name| !has(name)).copied().collect();
        (!absent.is_empty() && absent.len() < names.len()).then(|| {
            format!(
                "the adapter's configuration names {what}, and there are pairs for {} of the {} '{kind}': none for {}",
                names.len() - absent.len(),
                names.len(),
                quoted(&absent)
            )
        })
    };
    kinds.into_iter().filter_map(gap).collect()
}

/// Refuses an adapter that says that it has pairs of parameters of which none, or not all, were merged.
fn check_parameters(
    inventory: &Inventory,
    meaning: &Meaning,
    taken: &Taken,
    known: impl Fn(&str) -> bool,
) -> Result<()> {
    for target in &meaning.parameters {
        let what = format!("'{target}' in target_parameters");
        let called = |name: &&String| is_called(name, target);
        if !taken.merged.iter().any(|name| called(&name)) {
            let message =
                format!("the adapter's configuration names {what}, and there is no pair for it");
            return Err(lacks(message, "target_parameters"));
        }
        let all = experts::all(inventory, meaning);
        let due = all.iter().filter(called).filter(|name| known(name));
        let due: Vec<&str> = due.map(String::as_str).collect();
        let partly = gaps(&due, |name| taken.merged.contains(name), &what);
        if let Some(gap) = partly.into_iter().next() {
            return Err(lacks(gap, "target_parameters"));
        }
    }
    Ok(())
}

fn check_kept(names: &[&str], told: &Told, taken: &Taken, tied: Option<&Tied>) -> Result<()> {
    // A library may save what two names have once.
    let both = tied.map(|tied| [&*tied.head, &*tied.embedding]);
    let is_there = |name: &str| match both.filter(|both| both.contains(&name)) {
        Some(both) => both.iter().any(|name| taken.replaced.contains(*name)),
        None => taken.replaced.contains(name),
    };
    for end in &told.kept {
        let lies_in = |name: &str| {
            let mut dots = name.match_indices('.').map(|(at, _)| at);
            dots.any(|at| name.get(..at).is_some_and(|module| module.ends_with(end)))
        };
        let absent = names.iter().filter(|name| lies_in(name) && !is_there(name));
        let absent: Vec<&str> = absent.copied().collect();
        if !absent.is_empty() {
            let message = format!(
                "the adapter's configuration names '{end}' in modules_to_save, and there is no tensor for {}",
                quoted(&absent)
            );
            return Err(lacks(message, "modules_to_save"));
        }
    }
    Ok(())
}

fn check_biases(names: &[&str], biases: Biases, taken: &Taken) -> Result<()> {
    let due = |name: &str| match (biases, name.strip_suffix(".bias")) {
        (Biases::All, Some(_)) => true,
        (Biases::OfPairs, Some(module)) => taken.merged.contains(&format!("{module}.weight")),
        _ => false,
    };
    let absent = names
        .iter()
        .filter(|name| due(name) && !taken.replaced.contains(**name));
    let absent: Vec<&str> = absent.copied().collect();
    if absent.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the adapter's configuration says by bias that biases were trained, and there is no tensor for {}",
        quoted(&absent)
    );
    Err(lacks(message, "bias"))
}

/// A name with every number in it left open.
fn kind(name: &str) -> String {
    let open = |part: &str| match is_number(part) {
        true => "*".to_owned(),
        false => part.to_owned(),
    };
    let parts: Vec<String> = name.split('.').map(open).collect();
    parts.join(".")
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a module is one of several experts.
fn is_expert(module: &str) -> bool {
    let parts: Vec<&str> = module.split('.').collect();
    let mut pairs = parts.windows(2);
    pairs.any(|pair| matches!(pair, [name, number] if *name == "experts" && is_number(number)))
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    first(&names, TOLD)
}

/// That something lacks; `key` of the configuration is where to say that it was never trained.
fn lacks(message: String, key: &str) -> Fault {
    let may = match key {
        "exclude_modules" => "modules that were never trained may be named in exclude_modules",
        "bias" => "if none was, bias may be set to \"none\"",
        _ => "what was never trained may be taken out of the list",
    };
    let hint = format!("is it this adapter's file, and whole? Save the adapter again; {may}");
    Fault::new(Kind::MissingShard, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_leave_numbers_open() {
        assert_eq!(
            kind("model.layers.12.mlp.experts.0.w1"),
            "model.layers.*.mlp.experts.*.w1"
        );
        assert_eq!(kind("h2o.norm_1"), "h2o.norm_1");
        assert!(is_expert("model.layers.12.mlp.experts.0.w1"));
        assert!(!is_expert("model.layers.12.mlp.experts.gate"));
    }
}
