//! Runs the opcodes of a pickle that make nodes.

use super::stack::{Machine, corrupt};
use super::value::{Made, Node, Pickle, Value};
use crate::fault::{Fault, Kind, Result};

/// Reads the pickle that `bytes` begin with, and says where it ends.
///
/// # Errors
/// [`Kind::Corrupt`] for what is cut off or makes no sense; [`Kind::Unsupported`] for a name that isn't
/// allowed, and for an opcode that no such file has.
pub(in crate::store::formats) fn read(bytes: &[u8]) -> Result<Pickle<'_>> {
    let mut machine = Machine::new(bytes);
    let root = machine.run()?;
    Ok(Pickle {
        bytes,
        nodes: machine.nodes,
        root,
        steps: std::cell::Cell::new(0),
    })
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value> {
        loop {
            let at = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                return match (&self.stack[..], &self.marks[..]) {
                    ([root], []) => Ok(*root),
                    _ => Err(corrupt("its pickle ends with values left over")),
                };
            }
            self.step(code).map_err(|fault| match fault.kind {
                Kind::Corrupt => Fault {
                    message: format!("{} (at byte {at} of its pickle)", fault.message),
                    ..fault
                },
                _ => fault,
            })?;
        }
    }

    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            // PROTO
            0x80 => {
                let protocol = self.take(1)?[0];
                if !(2..=5).contains(&protocol) {
                    return Err(corrupt(format!("is a pickle of protocol {protocol}")));
                }
            }
            // FRAME
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => {
                self.above_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // Numbers and constants.
            b'N' => self.push_constant(i64::MIN, Node::None)?,
            0x88 => self.push_constant(i64::MIN + 1, Node::Bool(true))?,
            0x89 => self.push_constant(i64::MIN + 2, Node::Bool(false))?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push_int(i64::from(number))?;
            }
            b'K' => {
                let number = self.take(1)?[0];
                self.push_int(i64::from(number))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push_int(i64::from(number))?;
            }
            0x8a => {
                let length = usize::from(self.take(1)?[0]);
                self.push_long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.push_long(length)?;
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(number))?;
            }
            _ => return self.step_texts(code),
        }
        Ok(())
    }

    /// Texts, bytes and the memo.
    fn step_texts(&mut self, code: u8) -> Result<()> {
        match code {
            0x8c | b'U' => {
                let length = usize::from(self.take(1)?[0]);
                self.push_text(length)?;
            }
            b'X' | b'T' => {
                let length = self.length4()?;
                self.push_text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.push_text(length)?;
            }
            b'C' => {
                let length = usize::from(self.take(1)?[0]);
                self.push_bytes(length)?;
            }
            b'B' => {
                let length = self.length4()?;
                self.push_bytes(length)?;
            }
            // BINBYTES8, BYTEARRAY8
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.push_bytes(length)?;
            }
            b'q' => {
                let index = u32::from(self.take(1)?[0]);
                self.memoize(index)?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memoize(index)?;
            }
            0x94 => {
                let index =
                    u32::try_from(self.memo.len()).map_err(|_| corrupt("it remembers too much"))?;
                self.memoize(index)?;
            }
            b'h' => {
                let index = u32::from(self.take(1)?[0]);
                self.recall(index)?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            _ => return self.step_collections(code),
        }
        Ok(())
    }

    /// Tuples, lists and mappings.
    fn step_collections(&mut self, code: u8) -> Result<()> {
        match code {
            b')' => self.push_constant(i64::MIN + 3, Node::Tuple(Vec::new()))?,
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let begin = self.floor(count)?;
                let elements = self.stack.split_off(begin);
                self.push(Node::Tuple(elements))?;
            }
            b't' => {
                let elements = self.above_mark()?;
                self.push(Node::Tuple(elements))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            // EMPTY_SET
            0x8f => self.push(Node::List(Vec::new()))?,
            // LIST, FROZENSET
            b'l' | 0x91 => {
                let elements = self.above_mark()?;
                self.push(Node::List(elements))?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.above_mark()?;
                self.push(Node::Dict(Vec::new()))?;
                self.add_items(items)?;
            }
            b'a' => {
                let element = self.pop()?;
                self.add_elements(vec![element])?;
            }
            // APPENDS, ADDITEMS
            b'e' | 0x90 => {
                let elements = self.above_mark()?;
                self.add_elements(elements)?;
            }
            b's' => {
                let begin = self.floor(2)?;
                let items = self.stack.split_off(begin);
                self.add_items(items)?;
            }
            b'u' => {
                let items = self.above_mark()?;
                self.add_items(items)?;
            }
            _ => return self.step_calls(code),
        }
        Ok(())
    }

    /// Names, and what is made by them.
    fn step_calls(&mut self, code: u8) -> Result<()> {
        match code {
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push_global(module, name)?;
            }
            0x93 => {
                let begin = self.floor(2)?;
                let names = self.stack.split_off(begin);
                self.push_global(names[0], names[1])?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let begin = self.floor(2)?;
                let call = self.stack.split_off(begin);
                let (of, arguments) = (call[0], call[1]);
                if !matches!(self.node(of), Node::Global(..))
                    || !matches!(self.node(arguments), Node::Tuple(_))
                {
                    return Err(corrupt("it calls what is no name"));
                }
                self.push(Node::Made(Box::new(Made {
                    of,
                    arguments,
                    state: None,
                    items: Vec::new(),
                    elements: Vec::new(),
                })))?;
            }
            b'b' => {
                let state = self.pop()?;
                let of = self.top()?;
                match self.nodes.get_mut(of as usize) {
                    Some(Node::Made(made)) => made.state = Some(state),
                    _ => return Err(corrupt("it gives a state to what is no object")),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))?;
            }
            _ => {
                let message = format!("its pickle has opcode 0x{code:02x}, which is not read");
                return Err(Fault::new(Kind::Unsupported, message));
            }
        }
        Ok(())
    }
}
