//! Which family a model is of, and which choices a checkpoint was made with.

use super::choices::{Choices, Experts, Fusion, Latent, Partial, Scheme, spelled};
use super::expression::Numbers;
use super::family::{Family, Make};
use super::latent::latent;
use super::mapping::Mapping;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the command line says of the MindSpore side.
pub type Given = Partial;

/// The family called `name`, or with `auto` that of the config.json.
///
/// # Errors
/// [`Kind::Unsupported`] for a model type that no table has, [`Kind::Usage`] for an unknown name.
pub fn find_family(name: &str, config: &Map<String, Value>) -> Result<Family> {
    let families = Family::built_in()?;
    let names: Vec<String> = families.iter().map(|f| f.family.clone()).collect();
    if name != "auto" {
        let found = families.into_iter().find(|family| family.is_called(name));
        return found.ok_or_else(|| {
            let message = format!("--family {name}: there is no such family");
            let near = nearest(name, names.iter().map(String::as_str));
            let near = near
                .first()
                .map_or(String::new(), |n| format!("did you mean {n}? "));
            let known = names.join(", ");
            Fault::new(Kind::Usage, message).hint(format!("{near}known: {known}"))
        });
    }
    let wanted = config.get("model_type").and_then(Value::as_str);
    let listed = config.get("architectures").and_then(Value::as_array);
    let class = listed
        .and_then(|all| all.first()?.as_str())
        .unwrap_or_default();
    let has = |family: &Family| match (wanted, &family.training) {
        (Some(wanted), _) => family.model_types.iter().any(|known| known == wanted),
        (None, Some(training)) => training.architectures.iter().any(|known| known == class),
        (None, None) => false,
    };
    families.into_iter().find(has).ok_or_else(|| {
        let Some(wanted) = wanted else {
            let message = match class {
                "" => "has no model_type, which says of which family the model is".to_owned(),
                class => format!(
                    "has no model_type, and no family table is for its architecture '{class}'"
                ),
            };
            return Fault::new(Kind::Unsupported, message).hint(format!(
                "is it a model's config.json, and whole? --family takes one of {}",
                names.join(", ")
            ));
        };
        let message = format!("no family table is for model type '{wanted}'");
        Fault::new(Kind::Unsupported, message).hint(format!(
            "--family takes one of {}, --name-map a table of your own (docs/formats.md)",
            names.join(", ")
        ))
    })
}

/// The choices that a MindSpore checkpoint was made with: as given, as its files record, or as its
/// names tell.
///
/// # Errors
/// [`Kind::Ambiguous`] if none of these tells how a fused tensor is laid out.
pub(super) fn choices_of(
    family: &Family,
    numbers: &Numbers,
    inventory: &Inventory,
    metadata: &BTreeMap<String, String>,
    given: &Given,
) -> Result<Choices> {
    let recorded = Partial::recorded(metadata)?;
    given.check(&recorded)?;
    let known = given.or(recorded);
    let has = |name: &str| inventory.tensors.contains_key(name) || inventory.private.contains(name);
    let (names, joined) = scheme(family, numbers, known.names, &has)?;
    // A fused tensor of this kind that the separate layout doesn't know.
    let is_joined = |make: Make| {
        let of_kind = joined.links.iter().filter(|link| link.make == Some(make));
        let mut tensors = of_kind
            .filter(|l| l.parts > l.ms.len())
            .flat_map(|link| &link.ms);
        tensors.any(|tensor| has(&tensor.name))
    };
    let fusion = |make: Make, known: Option<Fusion>, flag: &str| match known {
        Some(known) => Ok(known),
        None if !is_joined(make) => Ok(Fusion::Separate),
        None => {
            let message =
                format!("the files don't say how their fused {flag} tensors are laid out");
            Err(Fault::new(Kind::Ambiguous, message).hint(format!(
                "--{flag} interleaved or --{flag} contiguous --tp N, as the training job has them"
            )))
        }
    };
    // Experts in one tensor under the mcore names: in three dimensions or in two, the shape tells.
    let stacked = joined
        .links
        .iter()
        .filter(|link| link.make == Some(Make::Experts));
    let standing = stacked
        .flat_map(|link| &link.ms)
        .filter(|_| names == Scheme::Mcore)
        .find_map(|tensor| inventory.tensors.get(&tensor.name))
        .map(|tensor| tensor.shape.0.len() == 3);
    let choices = Choices {
        names,
        qkv: fusion(Make::Qkv, known.qkv, "qkv")?,
        ffn: fusion(Make::GateUp, known.ffn, "ffn")?,
        experts: match (standing, known.experts) {
            (Some(true), _) => Experts::Stacked3d,
            (Some(false), _) => Experts::Stacked,
            (None, Some(known)) => known,
            (None, None) if is_joined(Make::Experts) => Experts::Stacked,
            (None, None) => Experts::Separate,
        },
        mla: known.mla.unwrap_or(latent(inventory)),
        tp: known.tp.unwrap_or(1),
    };
    check_tp(&choices, known.tp)?;
    Ok(choices)
}

/// Which names most of the tensors there are have.
pub(super) fn names_of(
    family: &Family,
    numbers: &Numbers,
    inventory: &Inventory,
) -> Result<Scheme> {
    let has = |name: &str| inventory.tensors.contains_key(name) || inventory.private.contains(name);
    Ok(scheme(family, numbers, None, &has)?.0)
}

/// Checks that the tensor-parallel size is told where fused tensors depend on it.
fn check_tp(choices: &Choices, tp: Option<u64>) -> Result<()> {
    let flag = if choices.qkv == Fusion::Contiguous {
        "qkv"
    } else {
        "ffn"
    };
    if choices.depend_on_tp() && tp.is_none() {
        let fusion = spelled(Fusion::Contiguous);
        let message = format!("{fusion} fused {flag} tensors depend on the tensor-parallel size");
        return Err(Fault::new(Kind::Ambiguous, message)
            .hint("--tp N: that of the training job; 1 if query, key and value are whole"));
    }
    Ok(())
}

/// The scheme of names that more of the tensors there are have (`has`), unless it is known; and its
/// mapping with all tensors joined that can be.
fn scheme(
    family: &Family,
    numbers: &Numbers,
    known: Option<Scheme>,
    has: &dyn Fn(&str) -> bool,
) -> Result<(Scheme, Mapping)> {
    let present = |_: &str, _: &str| true;
    let spell = |names: Scheme| {
        let choices = Choices {
            names,
            qkv: Fusion::Interleaved,
            ffn: Fusion::Interleaved,
            experts: Experts::Stacked,
            mla: Latent::Separate,
            tp: 1,
        };
        Mapping::new(family, numbers, &choices, &present)
    };
    let hits = |names: Scheme| -> Result<(usize, Mapping)> {
        let joined = spell(names)?;
        let hits = joined.links.iter().flat_map(|link| &link.ms);
        Ok((hits.filter(|tensor| has(&tensor.name)).count(), joined))
    };
    if let Some(names) = known {
        return Ok((names, hits(names)?.1));
    }
    let (legacy, mcore) = (hits(Scheme::Legacy)?, hits(Scheme::Mcore)?);
    Ok(if legacy.0 > mcore.0 {
        (Scheme::Legacy, legacy.1)
    } else {
        (Scheme::Mcore, mcore.1)
    })
}

#[cfg(test)]
mod type_tests {
    use super::*;

    #[test]
    fn a_model_type_is_that_of_one_table_or_refused_by_name() {
        let of = |kind: &str| {
            let config = Map::from_iter([("model_type".to_owned(), kind.into())]);
            find_family("auto", &config).map(|family| family.family)
        };
        for (kind, family) in [
            ("llama", "llama"),
            ("mistral", "llama"),
            ("internlm3", "llama"),
            ("kimi_k2", "deepseek_v3"),
            ("deepseek_v32", "deepseek_v32"),
            ("deepseek_v4", "deepseek_v4"),
        ] {
            assert_eq!(of(kind).ok().as_deref(), Some(family), "{kind}");
        }
        for (class, family) in [("Qwen3MoeForCausalLM", Some("qwen3_moe")), ("GPT2", None)] {
            let config = Map::from_iter([("architectures".to_owned(), vec![class].into())]);
            let found = find_family("auto", &config).map(|family| family.family);
            assert_eq!(found.ok().as_deref(), family, "{class}");
        }
        let fault = find_family("auto", &Map::new()).unwrap_err();
        assert!(fault.message.contains("model_type"), "{fault:?}");
        assert!(fault.hint.unwrap().contains("--family"));
        let told = of("gpt2").unwrap_or_else(|fault| fault.message);
        assert!(
            told.contains("no family table") && told.contains("gpt2"),
            "{told}"
        );
    }
}
