//! Pickles that are written: only what a distributed checkpoint needs.

use crate::fault::{Fault, Kind, Result};
use serde_json::Value as Json;

/// A pickle of protocol 2 in the making.
#[derive(Debug)]
pub(in crate::store::formats) struct Emit(Vec<u8>);

impl Emit {
    /// One that is begun.
    pub(in crate::store::formats) fn new() -> Self {
        Emit(b"\x80\x02".to_vec())
    }

    /// The pickle.
    pub(in crate::store::formats) fn finished(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    /// Opcodes as they are.
    pub(in crate::store::formats) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Something named.
    pub(in crate::store::formats) fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.raw(b"c").raw(module.as_bytes()).raw(b"\n");
        self.raw(name.as_bytes()).raw(b"\n")
    }

    /// A text.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for one beyond 4 GB.
    pub(in crate::store::formats) fn text(&mut self, text: &str) -> Result<&mut Self> {
        let length = u32::try_from(text.len());
        let length = length.map_err(|_| Fault::new(Kind::Unsupported, "a name is too long"))?;
        Ok(self
            .raw(b"X")
            .raw(&length.to_le_bytes())
            .raw(text.as_bytes()))
    }

    /// A count.
    pub(in crate::store::formats) fn count(&mut self, count: u64) -> &mut Self {
        if let Ok(small) = u8::try_from(count) {
            return self.raw(&[b'K', small]);
        }
        match i32::try_from(count) {
            Ok(number) => self.raw(b"J").raw(&number.to_le_bytes()),
            // A last byte of zero keeps a large one from being negative.
            Err(_) if count > u64::MAX >> 1 => {
                self.raw(b"\x8a\x09").raw(&count.to_le_bytes()).raw(&[0])
            }
            Err(_) => self.raw(b"\x8a\x08").raw(&count.to_le_bytes()),
        }
    }

    /// A tuple of counts.
    pub(in crate::store::formats) fn counts(&mut self, counts: &[u64]) -> &mut Self {
        self.raw(b"(");
        for count in counts {
            self.count(*count);
        }
        self.raw(b"t")
    }

    /// A `torch.Size`.
    pub(in crate::store::formats) fn size(&mut self, counts: &[u64]) -> &mut Self {
        self.global("torch", "Size").counts(counts).raw(b"\x85R")
    }

    /// An object of a class without a state.
    pub(in crate::store::formats) fn object(&mut self, module: &str, name: &str) -> &mut Self {
        self.global(module, name).raw(b")\x81")
    }

    /// A plain value: numbers, texts, and lists and mappings of such.
    ///
    /// # Errors
    /// As [`Emit::text`].
    pub(in crate::store::formats) fn plain(&mut self, value: &Json) -> Result<&mut Self> {
        match value {
            Json::Null => self.raw(b"N"),
            Json::Bool(true) => self.raw(b"\x88"),
            Json::Bool(false) => self.raw(b"\x89"),
            Json::String(text) => self.text(text)?,
            Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(count), ..) => self.count(count),
                (_, Some(below), _) => self.raw(b"\x8a\x08").raw(&below.to_le_bytes()),
                (.., float) => self.raw(b"G").raw(&float.unwrap_or_default().to_be_bytes()),
            },
            Json::Array(elements) => {
                self.raw(b"](");
                for element in elements {
                    self.plain(element)?;
                }
                self.raw(b"e")
            }
            Json::Object(items) => {
                self.raw(b"}(");
                for (key, item) in items {
                    self.text(key)?.plain(item)?;
                }
                self.raw(b"u")
            }
        };
        Ok(self)
    }
}
