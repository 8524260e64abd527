//! One archive of `torch.save`, whole or within another file.

use super::tensor::StoredTensor;
use super::zip::{Archive, Stored};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::seal::Seal;
use crate::store::io::ReadFile;
use crate::tensor::digest::{residue, shift};
use crate::tensor::number::number;
use std::ops::Range;

/// Longest pickle that is read.
pub(in crate::store::formats) const PICKLE_BYTES_MAX: u64 = 128 << 20;

/// So many pieces of so many bytes each are read to tell copies of a tensor apart.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 4 << 10;

/// An archive that is open.
#[derive(Debug)]
pub(in crate::store::formats) struct Saved<'a> {
    file: &'a ReadFile,
    archive: Archive,
    /// What stands before the names of its entries.
    folder: String,
    /// Its pickle.
    pub(in crate::store::formats) pickle: Vec<u8>,
    /// The first of the small entries that were read whose CRC is another one.
    broken: Option<Seal>,
}

impl<'a> Saved<'a> {
    /// Opens the archive that is bytes `range` of `file`. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`]; [`Kind::Unsupported`] for what is packed, of another byte order, or a program;
    /// [`Kind::Io`].
    pub(in crate::store::formats) fn open(
        file: &'a ReadFile,
        range: Range<u64>,
    ) -> Result<Saved<'a>> {
        let archive = Archive::read(file, range)?;
        let program = archive.entries.keys();
        let mut program =
            program.filter(|name| name.ends_with("/constants.pkl") || name.contains("/code/"));
        if program.next().is_some() {
            let fault = Fault::new(
                Kind::Unsupported,
                "is a TorchScript program (torch.jit.save), no weights",
            );
            return Err(fault.hint(
                "save its weights in Python: torch.save(torch.jit.load(FILE).state_dict(), …)",
            ));
        }
        let (folder, stored) = archive.only("data.pkl")?;
        let folder = folder.to_owned();
        if stored.length > PICKLE_BYTES_MAX {
            let message = format!(
                "has a pickle of {} bytes, at most {PICKLE_BYTES_MAX} are read",
                stored.length
            );
            return Err(Fault::new(Kind::Unsupported, message));
        }
        let mut broken = None;
        let name = format!("{folder}data.pkl");
        let pickle = content(file, &archive, &name, stored, &mut broken)?;
        let order = format!("{folder}byteorder");
        if let Some(stored) = archive.entries.get(&order) {
            let text = match stored.length {
                0..=16 => content(file, &archive, &order, stored, &mut broken)?,
                _ => Vec::new(),
            };
            if text != b"little" {
                let message = format!(
                    "has its bytes in {}-endian order, which is not read",
                    String::from_utf8_lossy(&text).escape_default()
                );
                let fault = Fault::new(Kind::Unsupported, message);
                return Err(fault.hint("load and save it again in Python on this kind of machine"));
            }
        }
        Ok(Saved {
            file,
            archive,
            folder,
            pickle,
            broken,
        })
    }

    /// Whether the small entries that were read have the CRCs that the archive says. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] naming the first that hasn't.
    pub(in crate::store::formats) fn sound(&self) -> Result<()> {
        self.broken
            .as_ref()
            .map_or(Ok(()), |seal| Err(seal.broken(self.file)))
    }

    /// A tensor of one element, which lies at bytes `window`, as it is shown.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(in crate::store::formats) fn spelled(
        &self,
        tensor: &StoredTensor,
        window: &Range<u64>,
    ) -> Result<String> {
        let mut bytes = [0; 8];
        let length = usize::try_from(window.end - window.start).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get_mut(..length) else {
            return Err(Fault::new(Kind::Corrupt, "is no single number"));
        };
        self.file.read_at(bytes, window.start)?;
        let number = number(tensor.dtype, bytes);
        Ok(number.map_or_else(|| format!("{bytes:x?}"), |number| number.to_string()))
    }

    /// Type, shape and a sum of the bytes `window` that a tensor has: of all, or of what lies at even distances.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(in crate::store::formats) fn sampled(
        &self,
        tensor: &StoredTensor,
        window: &Range<u64>,
    ) -> Result<String> {
        let all = window.end - window.start;
        let part = SAMPLE_BYTES.min(all);
        let (mut sum, last) = (0, all - part);
        let mut bytes = zeroed(usize::try_from(part).unwrap_or(usize::MAX))?;
        for number in 0..SAMPLES {
            let start =
                last / (SAMPLES - 1) * number + last % (SAMPLES - 1) * number / (SAMPLES - 1);
            self.file.read_at(&mut bytes, window.start + start)?;
            sum = shift(sum, part) ^ residue(&bytes);
        }
        let shape = &tensor.shape;
        Ok(format!(
            "{} {:?} with the sum {sum:016x}",
            tensor.dtype, shape.0
        ))
    }

    /// Where the bytes that `tensor` lies in are in the file. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if its storage is missing or has another length.
    pub(in crate::store::formats) fn window(&self, tensor: &StoredTensor) -> Result<Range<u64>> {
        let name = format!("{}data/{}", self.folder, tensor.key);
        let missing = || Fault::new(Kind::Corrupt, format!("its storage {name} is missing"));
        let stored = self.archive.entries.get(&name).ok_or_else(missing)?;
        if stored.length != tensor.storage_bytes {
            let message = format!(
                "its storage {name} has {} bytes, its pickle says {}",
                stored.length, tensor.storage_bytes
            );
            return Err(Fault::new(Kind::Corrupt, message));
        }
        let bytes = self.archive.bytes(self.file, &name, stored)?;
        Ok(bytes.start + tensor.window.start..bytes.start + tensor.window.end)
    }
}

/// The bytes of a small entry; its seal in `broken` if they have another CRC than the archive says.
fn content(
    file: &ReadFile,
    archive: &Archive,
    name: &str,
    stored: &Stored,
    broken: &mut Option<Seal>,
) -> Result<Vec<u8>> {
    let range = archive.bytes(file, name, stored)?;
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = zeroed(length)?;
    file.read_at(&mut bytes, range.start)?;
    if stored.crc != 0 && crc32fast::hash(&bytes) != stored.crc {
        broken.get_or_insert(Seal::of(range, stored.crc, Some(name.to_owned())));
    }
    Ok(bytes)
}

/// What a file in which archives follow each other says of the CRCs of their entries, as far back from its end
/// as there are archives. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(in crate::store::formats) fn seals_of_all(file: &ReadFile) -> Result<Vec<Seal>> {
    let mut found = Vec::new();
    let mut end = file.size();
    while end > 0 {
        let archive = match Archive::ending_at(file, end) {
            Ok(Some(archive)) => archive,
            Err(fault) if fault.kind == Kind::Io => return Err(fault),
            // Something else lies there.
            _ => break,
        };
        end = archive.begin();
        found.extend(archive.seals(file).unwrap_or_default());
    }
    Ok(found)
}
