//! A file that lines are added to, by several processes at once.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::gate::gate;
use crate::store::io::named::named;
use crate::store::io::trace;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file that is added to.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
}

impl AppendFile {
    /// Opens `path`, which is made if it isn't there. What stands in it must begin as `begins` says.
    ///
    /// # Errors
    /// [`Kind::Exists`] for a file that begins otherwise, [`Kind::Io`].
    pub fn open(path: &Path, begins: impl Fn(&[u8]) -> bool) -> Result<Self> {
        named("can't open", path, gate())?;
        // A pipe that nobody reads would be waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .create(true)
            .custom_flags(flags);
        let mut file = named("can't open", path, options.open(path))?;
        trace::opened(&file);
        let metadata = named("can't read its size", path, file.metadata())?;
        let refused =
            |message: &str| Err(Fault::new(Kind::Exists, message).file(path.display().to_string()));
        if !metadata.is_file() {
            return refused("is not a regular file");
        }
        let mut first = [0; 64];
        let read = named("can't read", path, file.read(&mut first))?;
        match first.get(..read) {
            Some(first) if read == 0 || begins(first) => Ok(AppendFile { file }),
            _ => refused("exists, and holds something else"),
        }
    }

    /// Adds `line` in one write, whatever others add.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, line: &[u8]) -> std::io::Result<()> {
        (&self.file).write_all(line)
    }
}
