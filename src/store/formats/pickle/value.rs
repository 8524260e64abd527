//! What a pickle holds: nodes in one list, which name each other by number.

use crate::fault::{Fault, Kind, Result};

/// The number of a node.
pub(in crate::store::formats) type Value = u32;

/// Steps that a walk over values may take: lists doubled through the memo have more than any memory.
const STEPS_MAX: u64 = 1 << 24;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store::formats) enum Node {
    /// `None`.
    None,
    /// True or false.
    Bool(bool),
    /// A number of at most 64 bits.
    Int(i64),
    /// A longer number.
    Long,
    /// A number of floating point.
    Float(f64),
    /// A text: its first byte in the pickle, and its length.
    Text(usize, usize),
    /// Bytes: the first one in the pickle, and how many.
    Bytes(usize, usize),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A list, or a set.
    List(Vec<Value>),
    /// A mapping: keys and values in turn.
    Dict(Vec<Value>),
    /// Something named: the texts of its module and of its name.
    Global(Value, Value),
    /// Something that was called with arguments, or made of a class.
    Made(Box<Made>),
    /// What a persistent id stands for.
    Persistent(Value),
}

/// What was called, with what, and what was put into it since.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store::formats) struct Made {
    /// Whom: a [`Node::Global`].
    pub(in crate::store::formats) of: Value,
    /// With what: a tuple.
    pub(in crate::store::formats) arguments: Value,
    /// Its state, if one was given.
    pub(in crate::store::formats) state: Option<Value>,
    /// Keys and values in turn.
    pub(in crate::store::formats) items: Vec<Value>,
    /// Elements.
    pub(in crate::store::formats) elements: Vec<Value>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(in crate::store::formats) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) nodes: Vec<Node>,
    pub(super) root: Value,
    pub(super) steps: std::cell::Cell<u64>,
}

impl<'a> Pickle<'a> {
    /// What it is all about.
    pub(in crate::store::formats) fn root(&self) -> Value {
        self.root
    }

    /// A node.
    pub(in crate::store::formats) fn node(&self, value: Value) -> &Node {
        self.nodes.get(value as usize).unwrap_or(&Node::None)
    }

    /// Counts a step of a walk.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if there are too many of them.
    pub(in crate::store::formats) fn step(&self) -> Result<()> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() <= STEPS_MAX {
            return Ok(());
        }
        let message = "its values name each other in more ways than can be looked through";
        Err(Fault::new(Kind::Corrupt, message))
    }

    /// The text of a node, if it is one.
    pub(in crate::store::formats) fn text(&self, value: Value) -> Option<&'a str> {
        match self.node(value) {
            Node::Text(at, length) => {
                let bytes = self.bytes.get(*at..at.checked_add(*length)?)?;
                std::str::from_utf8(bytes).ok()
            }
            _ => None,
        }
    }

    /// The number of a node, if it is one that counts something.
    pub(in crate::store::formats) fn count(&self, value: Value) -> Option<u64> {
        match self.node(value) {
            Node::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The elements of a tuple or list, or of a call of `torch.Size`.
    pub(in crate::store::formats) fn elements(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Node::Tuple(elements) | Node::List(elements) => Some(elements),
            Node::Made(made) if self.names(made.of) == Some(("torch", "Size")) => {
                match self.node(made.arguments) {
                    Node::Tuple(arguments) => match &arguments[..] {
                        [] => Some(&[]),
                        [only] => match self.node(*only) {
                            Node::Tuple(elements) | Node::List(elements) => Some(elements),
                            _ => None,
                        },
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The counts in a tuple, list or size.
    pub(in crate::store::formats) fn counts(&self, value: Value) -> Option<Vec<u64>> {
        let elements = self.elements(value)?.iter();
        elements.map(|element| self.count(*element)).collect()
    }

    /// Keys and values of a mapping; of one that was made by `OrderedDict` or the like, too.
    pub(in crate::store::formats) fn items(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Node::Dict(items) => Some(items),
            Node::Made(made) => {
                let (module, name) = self.names(made.of)?;
                let mapping = module == "collections"
                    && ["OrderedDict", "defaultdict", "Counter"].contains(&name);
                mapping.then_some(&made.items)
            }
            _ => None,
        }
    }

    /// Module and name of what is named.
    pub(in crate::store::formats) fn names(&self, value: Value) -> Option<(&'a str, &'a str)> {
        match self.node(value) {
            Node::Global(module, name) => Some((self.text(*module)?, self.text(*name)?)),
            _ => None,
        }
    }

    /// Whom a node was made by: module and name, with its arguments and state.
    pub(in crate::store::formats) fn made(
        &self,
        value: Value,
    ) -> Option<(&'a str, &'a str, &Made)> {
        let Node::Made(made) = self.node(value) else {
            return None;
        };
        let (module, name) = self.names(made.of)?;
        Some((module, name, made))
    }

    /// What `key` stands for in a mapping of texts.
    pub(in crate::store::formats) fn get(&self, mapping: Value, key: &str) -> Option<Value> {
        let items = self.items(mapping)?;
        let mut pairs = items.chunks_exact(2);
        let pair = pairs.find(|pair| self.text(pair[0]) == Some(key))?;
        Some(pair[1])
    }
}
