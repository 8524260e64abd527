//! Memory maps of source files, for those whose disks prefer them (`--io mmap`).
#![allow(unsafe_code)]

use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use memmap2::Mmap;

/// A file mapped for reading.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    name: String,
}

impl Mapped {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn new(file: &ReadFile) -> Result<Self> {
        let name = file.path().display().to_string();
        // SAFETY: the map is only read, as bytes copied out. That nobody shrinks the file meanwhile
        // is the promise of whoever asks for `--io mmap`; it is off by default for that reason.
        let map = unsafe { Mmap::map(file.inner()) };
        let map = map.map_err(|error| Fault::io("can't map", &error).file(name.as_str()))?;
        Ok(Mapped { map, name })
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Kind::Io`] if the file ends before.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|begin| self.map.get(begin..begin.checked_add(buffer.len())?));
        match part {
            Some(part) => {
                buffer.copy_from_slice(part);
                Ok(())
            }
            None => Err(Fault::new(Kind::Io, "ends before what is to be read").file(&*self.name)),
        }
    }
}
