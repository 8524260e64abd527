//! What the states of a model say: the shapes of its weights, in the order that flat groups have them.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Node, Pickle, Value};
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};

/// Weights by name, in order.
pub(super) type Shapes = Vec<(String, Shape)>;

/// What the states say.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// The weights that are trained, a list for each group.
    pub(super) groups: Vec<Shapes>,
    /// The weights that aren't.
    pub(super) frozen: Shapes,
    /// Names that stand for another weight, by that one.
    pub(super) aliases: BTreeMap<String, Vec<String>>,
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// What `key` stands for, unless it is nothing.
pub(super) fn some(pickle: &Pickle<'_>, mapping: Value, key: &str) -> Option<Value> {
    let value = pickle.get(mapping, key)?;
    (*pickle.node(value) != Node::None).then_some(value)
}

/// Names and shapes in a mapping.
fn shapes(pickle: &Pickle<'_>, mapping: Value) -> Result<Shapes> {
    let items = pickle.items(mapping);
    let items = items.ok_or_else(|| corrupt("its shapes are no mapping of names to them"))?;
    let pairs = items.chunks_exact(2).map(|pair| {
        let name = pickle.text(pair[0]);
        let name = name.ok_or_else(|| corrupt("its shapes have a key that is no name"))?;
        let shape = pickle.counts(pair[1]);
        let shape = shape.ok_or_else(|| corrupt("its shape is none").tensor(name))?;
        Ok((name.to_owned(), Shape(shape)))
    });
    pairs.collect()
}

impl Model {
    /// Reads the states of a model.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for shapes that are none, and for a weight that is there twice.
    pub(super) fn read(pickle: &Pickle<'_>) -> Result<Model> {
        let root = pickle.root();
        let mut model = Model::default();
        if let Some(told) = some(pickle, root, "param_shapes") {
            let groups: Vec<Value> = match pickle.node(told) {
                Node::List(groups) | Node::Tuple(groups) => groups.clone(),
                _ => vec![told],
            };
            let groups = groups.into_iter().map(|group| shapes(pickle, group));
            model.groups = groups.collect::<Result<_>>()?;
        }
        if let Some(told) = some(pickle, root, "frozen_param_shapes") {
            model.frozen = shapes(pickle, told)?;
        }
        let mut known = BTreeSet::new();
        for (name, shape) in model.groups.iter().flatten().chain(&model.frozen) {
            shape
                .elements()
                .map_err(|fault| fault.tensor(name.as_str()))?;
            if !known.insert(name.as_str()) {
                return Err(corrupt("its shape is told twice").tensor(name.as_str()));
            }
        }
        let shared = some(pickle, root, "shared_params");
        let shared = shared
            .and_then(|shared| pickle.items(shared))
            .unwrap_or_default();
        for pair in shared.chunks_exact(2) {
            if let (Some(alias), Some(of)) = (pickle.text(pair[0]), pickle.text(pair[1])) {
                let aliases = model.aliases.entry(of.to_owned()).or_default();
                aliases.push(alias.to_owned());
            }
        }
        Ok(model)
    }

    /// The name of a weight, and those that stand for it.
    pub(super) fn names<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let aliases = self.aliases.get(name).into_iter().flatten();
        std::iter::once(name).chain(aliases.map(String::as_str))
    }
}
