//! A source file that is open, and how it is read.

use crate::fault::Result;
use crate::store::io::ReadFile;
use crate::store::mapped::Mapped;
use crate::transport::behind::Behind;
use crate::transport::sealed::SealedReads;
use std::sync::Arc;

#[derive(Clone)]
enum How {
    Read(Arc<ReadFile>),
    Mapped(Arc<Mapped>),
}

/// A source file that is open.
#[derive(Clone)]
pub(super) struct Opened {
    how: How,
    sealed: Option<Arc<SealedReads>>,
}

impl Opened {
    /// Opens it for reading by system calls, or maps it; what is read is noted in `sealed`.
    pub(super) fn new(
        file: ReadFile,
        maps: bool,
        sealed: Option<Arc<SealedReads>>,
    ) -> Result<Self> {
        let how = match maps {
            true => How::Mapped(Arc::new(Mapped::new(file)?)),
            false => How::Read(Arc::new(file)),
        };
        Ok(Opened { how, sealed })
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64, behind: &Behind) -> Result<()> {
        match &self.how {
            How::Read(file) => {
                file.read_at(buffer, offset)?;
                behind.note(file, offset..offset + buffer.len() as u64);
            }
            How::Mapped(file) => file.read_at(buffer, offset)?,
        }
        if let Some(sealed) = &self.sealed {
            sealed.note(offset, buffer);
        }
        Ok(())
    }
}
