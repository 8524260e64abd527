//! What the opcodes of a pickle work with: its bytes, nodes, a stack, marks and a memo.

use super::allowed::is_allowed;
use super::value::{Node, Value};
use crate::fault::{Fault, Kind, Result};
use std::collections::HashMap;

/// What makes a tensor that is dealt over ranks (DTensor), of which a file has one rank's part.
const OF_RANKS: &str = "_rebuild_wrapper_subclass";
/// What to do about such a file, and about others.
const WHOLE: &str = "of tensors that are dealt over ranks it has one rank's parts: torch.distributed.checkpoint.save writes what is read as \
                     it is; or make them whole in Python first, by get_model_state_dict with full_state_dict=True, or tensor.full_tensor()";
const ALONE: &str =
    "if you trust whoever made it, save the weights alone: torch.save(model.state_dict(), FILE)";

pub(super) fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// What has been made so far.
pub(super) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) stack: Vec<Value>,
    /// How long the stack was at each mark.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u32, Value>,
    /// Nodes of small numbers, of true, false and none: made once.
    pub(super) constants: HashMap<i64, Value>,
}

/// Most values that are kept: about 256 MB of them.
const VALUES_MAX: u32 = 6 << 20;
/// Numbers that are made once.
const SMALL: std::ops::Range<i64> = -1024..1 << 20;

impl<'a> Machine<'a> {
    /// At the beginning of a pickle.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Machine {
            bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            constants: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| Some((end, self.bytes.get(self.at..end)?)));
        let Some((end, taken)) = taken else {
            let left = self.bytes.len() - self.at;
            return Err(corrupt(format!(
                "its pickle claims {count} bytes more, it has {left}"
            )));
        };
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn length4(&mut self) -> Result<usize> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| corrupt("its pickle claims too long a text"))
    }

    pub(super) fn length8(&mut self) -> Result<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| corrupt("its pickle claims too long a text"))
    }

    pub(super) fn node(&self, value: Value) -> &Node {
        self.nodes.get(value as usize).unwrap_or(&Node::None)
    }

    pub(super) fn add(&mut self, node: Node) -> Result<Value> {
        let number = u32::try_from(self.nodes.len());
        let number = number.ok().filter(|number| *number < VALUES_MAX);
        let number = number.ok_or_else(|| {
            let message = format!("its pickle has more than {VALUES_MAX} values");
            Fault::new(Kind::Unsupported, message)
        })?;
        if self.nodes.len() == self.nodes.capacity() {
            let more = self.nodes.len().max(64);
            let room = self.nodes.try_reserve(more);
            room.map_err(|_| Fault::new(Kind::Memory, "no memory for its pickle"))?;
        }
        self.nodes.push(node);
        Ok(number)
    }

    pub(super) fn push(&mut self, node: Node) -> Result<()> {
        let value = self.add(node)?;
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn push_constant(&mut self, key: i64, node: Node) -> Result<()> {
        let value = match self.constants.get(&key) {
            Some(value) => *value,
            None => {
                let value = self.add(node)?;
                self.constants.insert(key, value);
                value
            }
        };
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn push_int(&mut self, number: i64) -> Result<()> {
        match SMALL.contains(&number) {
            true => self.push_constant(number, Node::Int(number)),
            false => self.push(Node::Int(number)),
        }
    }

    pub(super) fn push_long(&mut self, length: usize) -> Result<()> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return self.push(Node::Long);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if negative { 0xff } else { 0 }; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push_int(i64::from_le_bytes(number))
    }

    pub(super) fn push_text(&mut self, length: usize) -> Result<()> {
        let at = self.at;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| corrupt("it has a text that is no UTF-8"))?;
        self.push(Node::Text(at, length))
    }

    pub(super) fn push_bytes(&mut self, length: usize) -> Result<()> {
        let at = self.at;
        self.take(length)?;
        self.push(Node::Bytes(at, length))
    }

    /// The rest of a line, as a text.
    pub(super) fn line(&mut self) -> Result<Value> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| corrupt("its pickle ends within a line"))?;
        let at = self.at;
        self.take(length + 1)?;
        std::str::from_utf8(&self.bytes[at..at + length])
            .map_err(|_| corrupt("it names something that is no UTF-8"))?;
        self.add(Node::Text(at, length))
    }

    pub(super) fn push_global(&mut self, module: Value, name: Value) -> Result<()> {
        let text = |value: Value| match self.node(value) {
            Node::Text(at, length) => {
                std::str::from_utf8(&self.bytes[*at..at + length]).unwrap_or_default()
            }
            _ => "",
        };
        let (of, called) = (text(module), text(name));
        if !is_allowed(of, called) {
            let shown: String = format!("{of}.{called}").chars().take(100).collect();
            let shown = shown.escape_default();
            let message = format!(
                "asks for {shown}, which is no part of a checkpoint that is read; nothing of it was run"
            );
            return Err(Fault::new(Kind::Unsupported, message).hint(match called {
                OF_RANKS => WHOLE,
                _ => ALONE,
            }));
        }
        self.push(Node::Global(module, name))
    }

    /// The lowest the stack may fall to.
    pub(super) fn mark(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    /// Where the topmost `count` values of the stack begin.
    pub(super) fn floor(&self, count: usize) -> Result<usize> {
        let begin = self.stack.len().checked_sub(count);
        let begin = begin.filter(|begin| *begin >= self.mark());
        begin.ok_or_else(|| corrupt("its pickle takes values that it hasn't made"))
    }

    pub(super) fn pop(&mut self) -> Result<Value> {
        self.floor(1)?;
        let top = self.stack.pop();
        top.ok_or_else(|| corrupt("its pickle takes values that it hasn't made"))
    }

    pub(super) fn top(&self) -> Result<Value> {
        let begin = self.floor(1)?;
        Ok(self.stack[begin])
    }

    pub(super) fn pop_or_mark(&mut self) -> Result<()> {
        if self.stack.len() == self.mark() && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(|_| ())
    }

    pub(super) fn above_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop();
        let mark =
            mark.ok_or_else(|| corrupt("its pickle goes back to a mark that isn't there"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn memoize(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    pub(super) fn recall(&mut self, index: u32) -> Result<()> {
        let known = self.memo.get(&index).copied();
        let known = known.ok_or_else(|| corrupt("its pickle recalls what it hasn't remembered"))?;
        self.stack.push(known);
        Ok(())
    }

    pub(super) fn add_elements(&mut self, elements: Vec<Value>) -> Result<()> {
        let top = self.top()?;
        match self.nodes.get_mut(top as usize) {
            Some(Node::List(list)) => list.extend(elements),
            Some(Node::Made(made)) => made.elements.extend(elements),
            _ => return Err(corrupt("its pickle appends to what is no list")),
        }
        Ok(())
    }

    pub(super) fn add_items(&mut self, items: Vec<Value>) -> Result<()> {
        if !items.len().is_multiple_of(2) {
            return Err(corrupt("its pickle has a key without a value"));
        }
        let top = self.top()?;
        match self.nodes.get_mut(top as usize) {
            Some(Node::Dict(dict)) => dict.extend(items),
            Some(Node::Made(made)) => made.items.extend(items),
            _ => return Err(corrupt("its pickle sets items of what is no mapping")),
        }
        Ok(())
    }
}
