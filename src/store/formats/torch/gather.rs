//! The tensors and values of a pickled mapping, by their paths.

use super::tensor::{StoredTensor, tensor};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Node, Pickle, Value};
use serde_json::{Number, Value as Json};
use std::collections::BTreeMap;

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 64;
/// Longest text or list of a value that is shown.
const SHOWN_MAX: usize = 4096;

/// What was found: tensors, and other values as far as they can be shown.
#[derive(Debug, Default)]
pub(in crate::store::formats) struct Gathered {
    /// Tensors by name.
    pub(in crate::store::formats) tensors: BTreeMap<String, StoredTensor>,
    /// What else there is, by name.
    pub(in crate::store::formats) values: BTreeMap<String, Json>,
}

/// A value as it is shown: the thing itself if it is plain, else what it is.
pub(in crate::store::formats) enum Shown {
    /// Numbers, texts and collections of them.
    Plain(Json),
    /// Something else: what.
    Kind(String),
}

fn deep() -> Fault {
    Fault::new(
        Kind::Corrupt,
        format!("its values are nested more than {DEPTH_MAX} deep"),
    )
}

/// Everything in `root`, which must be a mapping.
///
/// # Errors
/// [`Kind::Corrupt`] for what is nested too deep, or named twice; [`Kind::Unsupported`] if it is no mapping.
pub(in crate::store::formats) fn gather(pickle: &Pickle<'_>) -> Result<Gathered> {
    let root = pickle.root();
    let mut gathered = Gathered::default();
    if pickle.items(root).is_none() && !leads(pickle, root, 0)? {
        let what = match shown(pickle, root, 0)? {
            Shown::Kind(kind) => kind,
            Shown::Plain(_) => "a plain value".to_owned(),
        };
        let message = format!("is no mapping of names to tensors: it is {what}");
        let fault = Fault::new(Kind::Unsupported, message);
        return Err(fault.hint("save the weights alone: torch.save(model.state_dict(), FILE)"));
    }
    put(pickle, root, &mut String::new(), 0, &mut gathered)?;
    Ok(gathered)
}

/// Whether tensors or mappings are in a list or tuple.
fn leads(pickle: &Pickle<'_>, value: Value, depth: usize) -> Result<bool> {
    pickle.step()?;
    if depth > DEPTH_MAX {
        return Err(deep());
    }
    // One that can't be read is named where it is put.
    if !matches!(tensor(pickle, value), Ok(None)) || pickle.items(value).is_some() {
        return Ok(true);
    }
    let (Node::List(elements) | Node::Tuple(elements)) = pickle.node(value) else {
        return Ok(false);
    };
    for element in elements {
        if leads(pickle, *element, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put(
    pickle: &Pickle<'_>,
    value: Value,
    path: &mut String,
    depth: usize,
    into: &mut Gathered,
) -> Result<()> {
    pickle.step()?;
    if depth > DEPTH_MAX {
        return Err(deep());
    }
    let named = |fault: Fault| fault.tensor(path.as_str());
    if let Some(found) = tensor(pickle, value).map_err(named)? {
        if into.tensors.insert(path.clone(), found).is_some() {
            let fault = Fault::new(Kind::Corrupt, "two tensors have this name");
            return Err(fault.tensor(path.as_str()));
        }
        return Ok(());
    }
    if let Some(items) = pickle.items(value) {
        for pair in items.chunks_exact(2) {
            let key = key(pickle, pair[0]).map_err(|fault| fault.tensor(path.as_str()))?;
            inside(path, &key, |path| {
                put(pickle, pair[1], path, depth + 1, into)
            })?;
        }
        return Ok(());
    }
    if let Node::List(elements) | Node::Tuple(elements) = pickle.node(value)
        && leads(pickle, value, depth)?
    {
        for (number, element) in elements.iter().enumerate() {
            inside(path, &number.to_string(), |path| {
                put(pickle, *element, path, depth + 1, into)
            })?;
        }
        return Ok(());
    }
    let told = match shown(pickle, value, 0)? {
        Shown::Plain(json) => json,
        Shown::Kind(kind) => Json::String(format!("<{kind}>")),
    };
    into.values.insert(path.clone(), told);
    Ok(())
}

/// Goes on with `key` behind the path, which is as before in the end.
fn inside(path: &mut String, key: &str, go: impl FnOnce(&mut String) -> Result<()>) -> Result<()> {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    let result = go(path);
    path.truncate(length);
    result
}

/// A key as a text.
fn key(pickle: &Pickle<'_>, value: Value) -> Result<String> {
    match pickle.node(value) {
        Node::Text(..) => Ok(pickle.text(value).unwrap_or_default().to_owned()),
        Node::Int(number) => Ok(number.to_string()),
        Node::Bool(true) => Ok("True".into()),
        Node::Bool(false) => Ok("False".into()),
        Node::None => Ok("None".into()),
        Node::Tuple(parts) if parts.len() <= 8 => {
            let mut texts = Vec::new();
            for part in parts {
                match pickle.node(*part) {
                    Node::Text(..) => texts.push(pickle.text(*part).unwrap_or_default().to_owned()),
                    Node::Int(number) => texts.push(number.to_string()),
                    _ => return Err(Fault::new(Kind::Unsupported, "has a key that is no text")),
                }
            }
            Ok(texts.join("_"))
        }
        _ => Err(Fault::new(Kind::Unsupported, "has a key that is no text")),
    }
}

/// A value as it is shown.
///
/// # Errors
/// [`Kind::Corrupt`] for what is nested too deep.
pub(in crate::store::formats) fn shown(
    pickle: &Pickle<'_>,
    value: Value,
    depth: usize,
) -> Result<Shown> {
    pickle.step()?;
    if depth > DEPTH_MAX {
        return Err(deep());
    }
    let plain = match pickle.node(value) {
        Node::None => Json::Null,
        Node::Bool(value) => Json::Bool(*value),
        Node::Int(number) => Json::Number((*number).into()),
        Node::Float(number) => {
            Number::from_f64(*number).map_or_else(|| Json::String(number.to_string()), Json::Number)
        }
        Node::Text(..) => {
            let text = pickle.text(value).unwrap_or_default();
            Json::String(text.chars().take(SHOWN_MAX).collect())
        }
        Node::Long => return Ok(Shown::Kind("a long number".into())),
        Node::Bytes(_, length) => return Ok(Shown::Kind(format!("{length} bytes"))),
        Node::Global(..) => {
            let (module, name) = pickle.names(value).unwrap_or_default();
            return Ok(match module {
                "torch" => Shown::Plain(Json::String(format!("torch.{name}"))),
                _ => Shown::Kind(format!("{module}.{name}")),
            });
        }
        Node::Persistent(_) => return Ok(Shown::Kind("a storage".into())),
        Node::Tuple(elements) | Node::List(elements) if elements.len() <= SHOWN_MAX => {
            return list(pickle, elements, depth);
        }
        Node::Tuple(_) | Node::List(_) => return Ok(Shown::Kind("a long list".into())),
        Node::Dict(items) => return mapping(pickle, items, depth),
        Node::Made(made) => {
            if let Some(elements) = pickle.elements(value) {
                return list(pickle, elements, depth);
            }
            if let Some(items) = pickle.items(value) {
                return mapping(pickle, items, depth);
            }
            let (module, name) = pickle.names(made.of).unwrap_or_default();
            let what = if module.starts_with("torch") && name.starts_with("_rebuild") {
                "a tensor".to_owned()
            } else {
                format!("{module}.{name}")
            };
            return Ok(Shown::Kind(what));
        }
    };
    Ok(Shown::Plain(plain))
}

fn inner(pickle: &Pickle<'_>, value: Value, depth: usize) -> Result<Json> {
    Ok(match shown(pickle, value, depth + 1)? {
        Shown::Plain(json) => json,
        Shown::Kind(kind) => Json::String(format!("<{kind}>")),
    })
}

fn list(pickle: &Pickle<'_>, elements: &[Value], depth: usize) -> Result<Shown> {
    let all: Result<Vec<Json>> = elements
        .iter()
        .map(|element| inner(pickle, *element, depth))
        .collect();
    all.map(Json::Array).map(Shown::Plain)
}

fn mapping(pickle: &Pickle<'_>, items: &[Value], depth: usize) -> Result<Shown> {
    let mut map = serde_json::Map::new();
    for pair in items.chunks_exact(2) {
        let key = key(pickle, pair[0]).unwrap_or_else(|_| "<a key>".into());
        map.insert(key, inner(pickle, pair[1], depth)?);
    }
    Ok(Shown::Plain(Json::Object(map)))
}
