//! Kinds of layers, which a family's table tells by lists in config.json: each has tensors of its own.

use super::expression::Numbers;
use crate::fault::{Fault, Kind, Result};
use serde::Deserialize;
use serde_json::Value;

/// One way in which config.json may tell which layers are of a kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum LayersOf {
    /// Those whose entry in a list, one a layer, is this.
    Listed {
        /// The list's key.
        list: String,
        /// The entry.
        is: Value,
    },
    /// The first ones.
    First {
        /// How many: an expression.
        first: String,
    },
}

/// Whether layer `layer` is of the kind called `kind`, by the first of the ways that config.json has. Of layers that
/// predict further tokens (`further`) a list may say nothing: they are of no kind then.
///
/// # Errors
/// [`Kind::Corrupt`] if config.json tells it in none of these ways, or has fewer entries than layers.
pub(super) fn is_of(
    kind: &str,
    ways: &[LayersOf],
    numbers: &Numbers,
    layer: u64,
    further: bool,
) -> Result<bool> {
    let mut keys = Vec::new();
    for way in ways {
        match way {
            LayersOf::First { first } => return Ok(!further && layer < numbers.value(first)?),
            LayersOf::Listed { list, is } => {
                let Some(entries) = numbers.raw(list).and_then(Value::as_array) else {
                    keys.push(format!("'{list}'"));
                    continue;
                };
                let entry = usize::try_from(layer).ok().and_then(|at| entries.get(at));
                if entry.is_none() && !further {
                    let message = format!(
                        "config.json's '{list}' has {} entries: layer {layer} has none",
                        entries.len()
                    );
                    return Err(Fault::new(Kind::Corrupt, message)
                        .hint("it has an entry for each of the layers"));
                }
                return Ok(entry == Some(is));
            }
        }
    }
    let message = format!(
        "config.json has no {}, which tells the layers of kind '{kind}'",
        keys.join(" and no ")
    );
    Err(Fault::new(Kind::Corrupt, message).hint("is it the model's own config.json, and whole?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn layers_are_of_a_kind_by_the_first_list_that_is_there() {
        let ways: Vec<LayersOf> = serde_json::from_value(serde_json::json!([
            {"list": "ratios", "is": 4}, {"list": "types", "is": "sparse"}
        ]))
        .unwrap();
        let first: Vec<LayersOf> =
            serde_json::from_value(serde_json::json!([{"first": "hashed | 3"}])).unwrap();
        let of = |config: Value, ways: &[LayersOf], further: bool| {
            let numbers = Numbers::new(&BTreeMap::new(), config.as_object().unwrap());
            let one = |layer| is_of("csa", ways, &numbers, layer, further);
            (0..3)
                .map(one)
                .collect::<Result<Vec<_>>>()
                .map_err(|fault| fault.message)
        };
        let lists =
            serde_json::json!({"ratios": [0, 4.0, 128], "types": ["sparse", "sparse", "sparse"]});
        assert_eq!(of(lists, &ways, false), Ok(vec![false, true, false]));
        let types = serde_json::json!({"ratios": null, "types": ["sparse", "", "sparse"]});
        assert_eq!(of(types, &ways, false), Ok(vec![true, false, true]));
        let short = serde_json::json!({"ratios": [4, 4]});
        let told = of(short.clone(), &ways, false).unwrap_err();
        assert!(told.contains("'ratios' has 2 entries"), "{told}");
        assert_eq!(of(short, &ways, true), Ok(vec![true, true, false]));
        let told = of(serde_json::json!({}), &ways, false).unwrap_err();
        assert!(told.contains("no 'ratios' and no 'types'"), "{told}");
        let one = serde_json::json!({"hashed": 1});
        assert_eq!(of(one.clone(), &first, false), Ok(vec![true, false, false]));
        assert_eq!(of(one, &first, true), Ok(vec![false; 3]));
        assert_eq!(of(serde_json::json!({}), &first, false), Ok(vec![true; 3]));
    }
}
