//! A format as the rest of the program holds it.

use super::ckpt::Ckpt;
use super::refuse::refuse_start;
use super::row::{FileFormat, Start};
use super::safetensors::Safetensors;
use super::seal::Seal;
use super::table::FILES;
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use crate::store::names;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A file format for tensors.
#[derive(Clone, Copy)]
pub struct Format(&'static dyn FileFormat);

/// Whether a file's name is one that trainers and their scripts give strategies: these end in `.ckpt`, too.
#[must_use]
pub fn is_strategy(name: &str) -> bool {
    let stem = name.strip_suffix(".ckpt").unwrap_or_default();
    stem == "merged_strategy" || stem.contains("ckpt_strategy")
}

impl Format {
    /// safetensors.
    pub const SAFETENSORS: Format = Format(&Safetensors);
    /// MindSpore's protobuf checkpoint.
    pub const CKPT: Format = Format(&Ckpt);

    /// The format of a row.
    pub(super) const fn of_row(row: &'static dyn FileFormat) -> Format {
        Format(row)
    }

    /// All formats that are read.
    pub fn all() -> impl Iterator<Item = Format> {
        FILES.iter().map(|row| Format(*row))
    }

    /// Those that are written, too.
    pub fn written() -> impl Iterator<Item = Format> {
        Format::all().filter(|format| format.0.is_written() && format.tells_itself())
    }

    /// The format that a file's name speaks of: which files of a directory are weights. A name that
    /// begins with a dot is none, whatever its ending: such files are left by copying tools and
    /// editors. Nor is one of a format whose files lie beside weights as often as they hold them.
    #[must_use]
    pub fn of(path: &str) -> Option<Format> {
        Format::spoken_of(path).filter(|format| format.0.is_written())
    }

    /// The same of all formats.
    #[must_use]
    pub fn spoken_of(path: &str) -> Option<Format> {
        let name = path.rsplit('/').next()?;
        let (stem, ending) = name.rsplit_once('.')?;
        let hidden = stem.is_empty() || name.starts_with('.');
        let has = |format: &Format| {
            format.extension() == ending || format.0.extensions().contains(&ending)
        };
        Format::all().find(|format| !hidden && format.tells_itself() && has(format))
    }

    /// The same for a file that is a part of a directory, too, and tells nothing of itself.
    #[must_use]
    pub fn of_part(path: &str) -> Option<Format> {
        let ending = path.rsplit_once('.')?.1;
        let mut parts = Format::all().filter(|format| !format.tells_itself());
        Format::of(path).or_else(|| parts.find(|format| format.extension() == ending))
    }

    /// Those of `names` that are weights by their names; files that only may be such where there are no
    /// others. What a trainer calls a strategy is none.
    #[must_use]
    pub fn weights<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<&'a str> {
        let names = names.filter(|name| !is_strategy(name));
        let found: Vec<&str> = names
            .clone()
            .filter(|name| Format::of(name).is_some())
            .collect();
        match found[..] {
            [] => names
                .filter(|name| Format::spoken_of(name).is_some())
                .collect(),
            _ => found,
        }
    }

    /// Whether a file of this name alone is taken for weights, or may be such.
    #[must_use]
    pub fn may_be_weights(name: &str) -> bool {
        !Format::weights(std::iter::once(name)).is_empty()
    }

    /// The format of this name.
    #[must_use]
    pub fn called(name: &str) -> Option<Format> {
        Format::all().find(|format| format.name() == name)
    }

    /// The format of an open file, by its first bytes; by its name where these are damaged. Local.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] and [`Kind::Corrupt`] for something else, saying what it looks like and
    /// what to do; [`Kind::Io`].
    pub fn recognise(file: &ReadFile) -> Result<Format> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        let told = Start::of(file, |start| {
            if let Some(row) = FILES.iter().find(|row| row.recognise(start)) {
                return Ok(Format(*row));
            }
            refuse_start(start)?;
            Format::of(start.name).ok_or_else(|| unknown(start))
        })?;
        told.map_err(named)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether a file of it tells its own structure.
    #[must_use]
    pub fn tells_itself(self) -> bool {
        self.0.tells_itself()
    }

    /// Whether its files have a place for texts by key.
    #[must_use]
    pub fn keeps_metadata(self) -> bool {
        self.0.keeps_metadata()
    }

    /// Whether files of it are written.
    #[must_use]
    pub fn is_written(self) -> bool {
        self.0.is_written()
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.0.about()
    }

    /// The extension of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        self.0.extension()
    }

    /// Reads the structure of an open file. Local.
    ///
    /// # Errors
    /// As [`FileFormat::read`].
    pub fn read(self, file: &ReadFile) -> Result<FileSchema> {
        self.0.read(file)
    }

    /// The bytes that determine a file's structure, as [`FileFormat::header`]. Local.
    ///
    /// # Errors
    /// As [`FileFormat::read`].
    pub fn header(self, file: &ReadFile) -> Result<Option<Vec<u8>>> {
        self.0.header(file)
    }

    /// Checks the names of tensors that are to be written into one place.
    ///
    /// # Errors
    /// [`Kind::Ambiguous`] for one that two tensors have, [`Kind::Unsupported`] for one that no tensor
    /// can have.
    pub fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
        names::check(names)
    }

    /// Lays out a file for `tensors`.
    ///
    /// # Errors
    /// As [`FileFormat::design`] and [`Format::check_names`].
    pub fn design(
        self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        Format::check_names(tensors.iter().map(|(name, _, _)| &**name))?;
        self.0.design(tensors, metadata)
    }

    /// What all files of it say of themselves when they are written.
    #[must_use]
    pub fn marks(self) -> BTreeMap<String, String> {
        self.0.marks()
    }

    /// Whether a checksum of its own can follow a finished file.
    #[must_use]
    pub fn has_checksum(self) -> bool {
        self.0.has_checksum()
    }

    /// The checksum that follows a finished file, as [`FileFormat::finish`]. Local.
    ///
    /// # Errors
    /// As [`FileFormat::finish`].
    pub fn finish(self, file: &ReadFile) -> Result<Vec<u8>> {
        self.0.finish(file)
    }

    /// Whether a file of this name that says this of itself may carry checksums of its own.
    #[must_use]
    pub fn may_be_sealed(path: &str, metadata: &BTreeMap<String, String>) -> bool {
        Format::spoken_of(path).is_none_or(|format| format.0.may_be_sealed(metadata))
    }

    /// The checksums that an open file carries of itself, as [`FileFormat::seals`]. Local.
    ///
    /// # Errors
    /// As [`FileFormat::seals`], naming the file.
    pub fn seals(self, file: &ReadFile) -> Result<Vec<Seal>> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        self.0.seals(file).map_err(named)
    }
}

/// The fault for a file that nothing is known of.
fn unknown(start: &Start<'_>) -> Fault {
    let known = Format::all().filter(|format| format.tells_itself());
    let known: Vec<&str> = known.map(Format::name).collect();
    let first = start.bytes.iter().take(8);
    let first: Vec<String> = first.map(|byte| format!("{byte:02x}")).collect();
    let message = format!(
        "is no file of weights that is known: it begins with the bytes {}",
        first.join(" ")
    );
    Fault::new(Kind::Unsupported, message).hint(format!("read are {}", known.join(", ")))
}

impl Default for Format {
    fn default() -> Self {
        Format::SAFETENSORS
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P101
    #[test]
    fn a_name_that_begins_with_a_dot_is_no_weights() {
        assert_eq!(Format::of("a.b/x.safetensors"), Some(Format::SAFETENSORS));
        assert_eq!(Format::of(".cache/x.ckpt"), Some(Format::CKPT));
        for name in [
            "._x.safetensors",
            "rank_0/.x.ckpt",
            ".nfs0001",
            ".safetensors",
            "x.safetensors.tmp",
            "safetensors",
        ] {
            assert_eq!(Format::of(name), None, "{name}");
        }
    }

    #[test]
    fn tells_its_own_files_by_their_first_bytes() {
        let told = |bytes: &[u8]| {
            let start = Start {
                name: "x",
                size: bytes.len() as u64,
                bytes,
            };
            let row = FILES.iter().find(|row| row.recognise(&start));
            row.map(|row| row.name())
        };
        assert_eq!(told(b"\x08\0\0\0\0\0\0\0{}      "), Some("safetensors"));
        assert_eq!(
            told(b"\x0a\x0f\x0a\x01w\x12\x0a\x08\x02\x12\x04Int8\x1a\x02ab"),
            Some("ckpt")
        );
        for other in [
            &b"\x08\0\0\0\0\0\0\0[]      "[..],
            b"\xff\0\0\0\0\0\0\x01{}",
            b"\x0a\x0a\x0atext after empty lines",
            b"\x08\x02\x12\x05\x0a\x01a",
            b"{}",
            b"",
        ] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }
}
