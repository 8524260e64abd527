//! Memory maps of source files, for those whose disks prefer them (`--io mmap`).
#![allow(unsafe_code)]

use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use memmap2::Mmap;

/// A file mapped for reading.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    file: ReadFile,
}

impl Mapped {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn new(file: ReadFile) -> Result<Self> {
        // SAFETY: the map is only read, as bytes copied out. That nobody shrinks the file meanwhile
        // is the promise of whoever asks for `--io mmap`; it is off by default for that reason.
        let map = unsafe { Mmap::map(file.inner()) };
        let map = map.map_err(|error| {
            Fault::io("can't map", &error).file(file.path().display().to_string())
        })?;
        Ok(Mapped { map, file })
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// The file's size is asked for first, so a file that has shrunk is an error. One that shrinks
    /// while these bytes are copied still ends the process by SIGBUS.
    ///
    /// # Errors
    /// [`Kind::Io`] if the file ends before.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.map.len() as u64) {
            return self.ends("ends before what is to be read");
        }
        if self.file.size_now()? < self.map.len() as u64 {
            return self.ends("has shrunk since it was opened");
        }
        let part = usize::try_from(offset)
            .ok()
            .and_then(|begin| self.map.get(begin..begin.checked_add(buffer.len())?));
        match part {
            Some(part) => {
                buffer.copy_from_slice(part);
                Ok(())
            }
            None => self.ends("ends before what is to be read"),
        }
    }

    fn ends(&self, message: &str) -> Result<()> {
        let fault = Fault::new(Kind::Io, message);
        Err(fault.file(self.file.path().display().to_string()))
    }
}
