//! What a row of the table says of its format.

use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::seal::Seal;
use crate::store::io::{self, ReadFile};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Bytes at the start of a file by which its format is told.
pub const START_BYTES: usize = 1024;
/// Directories inside a directory that are looked into to tell what it is.
const ROOMS_MAX: usize = 16;

/// How a file begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Its name, without directories.
    pub name: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Its first bytes, at most [`START_BYTES`].
    pub bytes: &'a [u8],
}

impl Start<'_> {
    /// Gives `look` the start of an open file. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn of<T>(file: &ReadFile, look: impl FnOnce(&Start<'_>) -> T) -> Result<T> {
        let mut buffer = [0; START_BYTES];
        let length = usize::try_from(file.size()).unwrap_or(START_BYTES);
        let bytes = &mut buffer[..length.min(START_BYTES)];
        file.read_at(bytes, 0)?;
        let name = file.path().file_name().unwrap_or_default();
        Ok(look(&Start {
            name: &name.to_string_lossy(),
            size: file.size(),
            bytes,
        }))
    }

    /// Whether the file begins with `magic`.
    #[must_use]
    pub fn with(&self, magic: &[u8]) -> bool {
        self.bytes.starts_with(magic)
    }

    /// Whether `text` is somewhere in the first bytes.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.bytes.windows(text.len()).any(|part| part == text)
    }

    /// The first bytes as text, without blanks before it; `None` if they are something else.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let bytes = self
            .bytes
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(self.bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // A letter that the window cuts.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
            }
            Err(_) => return None,
        };
        let plain = |c: char| !c.is_control() || c.is_ascii_whitespace();
        let text = text.trim_start();
        (!text.is_empty() && text.chars().all(plain)).then_some(text)
    }
}

/// A format of files of tensors.
pub trait FileFormat: Sync {
    /// Its name, as `--to` and messages have it.
    fn name(&self) -> &'static str;

    /// What it is, in a few words.
    fn about(&self) -> &'static str;

    /// The extension of its files.
    fn extension(&self) -> &'static str;

    /// All extensions that its files have.
    fn extensions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a file that begins so is of it.
    fn recognise(&self, start: &Start<'_>) -> bool;

    /// Reads the structure of an open file. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] and others, naming the file.
    fn read(&self, file: &ReadFile) -> Result<FileSchema>;

    /// The bytes of an open file that, with its size, determine its structure; none where they don't
    /// lie together. Local.
    ///
    /// # Errors
    /// As [`FileFormat::read`].
    fn header(&self, _: &ReadFile) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Whether a file tells its own structure. What doesn't is a part of a directory that tells it, and
    /// isn't written alone.
    fn tells_itself(&self) -> bool {
        true
    }

    /// Whether files of it are written.
    fn is_written(&self) -> bool {
        true
    }

    /// Whether its files have a place for texts by key.
    fn keeps_metadata(&self) -> bool {
        false
    }

    /// Lays out a file for `tensors`.
    ///
    /// # Errors
    /// [`Kind::Dtype`] for a type that the format doesn't know, [`Kind::Unsupported`] if it isn't
    /// written.
    fn design(
        &self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema>;

    /// What all files of it say of themselves when they are written.
    fn marks(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Whether a checksum of its own can follow a finished file.
    fn has_checksum(&self) -> bool {
        false
    }

    /// The checksum that follows a finished file. Local: reads it.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::Unsupported`] if the format has none.
    fn finish(&self, file: &ReadFile) -> Result<Vec<u8>> {
        let fault = Fault::new(Kind::Unsupported, "its format has no checksum of its own");
        Err(fault.file(file.path().display().to_string()))
    }

    /// Whether a file of it that says this of itself may carry checksums of its own, of all or of parts.
    fn may_be_sealed(&self, _: &BTreeMap<String, String>) -> bool {
        false
    }

    /// The checksums that an open file carries of itself. Local: reads what tells of them.
    ///
    /// # Errors
    /// [`Kind::Corrupt`], [`Kind::Io`].
    fn seals(&self, _: &ReadFile) -> Result<Vec<Seal>> {
        Ok(Vec::new())
    }
}

/// What is in a directory, to tell what it is.
#[derive(Clone, Debug)]
pub struct Entries(Vec<String>);

impl Entries {
    /// Lists `path` and the directories in it: files by name, directories with a `/` at the end.
    /// Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn of(path: &Path) -> Result<Entries> {
        let shown = |(name, directory): (String, bool)| match directory {
            true => format!("{name}/"),
            false => name,
        };
        let mut entries: Vec<String> = io::list(path)?.into_iter().map(shown).collect();
        let rooms = entries.iter().filter(|name| name.ends_with('/'));
        let rooms: Vec<String> = rooms.take(ROOMS_MAX).cloned().collect();
        for room in rooms {
            let inside = io::list(&path.join(&room))?.into_iter().map(shown);
            entries.extend(inside.map(|name| format!("{room}{name}")));
        }
        Ok(Entries(entries))
    }

    /// The first entry whose own name, without the directory that it is in, is `wanted`.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<&str> {
        self.all(wanted).next()
    }

    /// All such entries.
    pub fn all(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        let own = move |entry: &str| {
            let begin = entry
                .trim_end_matches('/')
                .rfind('/')
                .map_or(0, |at| at + 1);
            wanted(&entry[begin..])
        };
        let entries = self.0.iter().map(String::as_str);
        entries.filter(move |entry| own(entry))
    }

    /// Entries with these paths, for tests.
    #[cfg(test)]
    pub(super) fn named(paths: &[&str]) -> Entries {
        Entries(paths.iter().map(|path| (*path).to_owned()).collect())
    }
}

/// Something that is known by sight and not read: what it is, and what to do with it.
#[derive(Debug)]
pub struct Foreign {
    /// What files or directories of the kind are called.
    pub name: &'static str,
    /// [`Kind::Unsupported`], or [`Kind::Corrupt`] for what stands where weights were meant.
    pub kind: Kind,
    /// What a file that begins so is; `None` if it is something else.
    pub file: fn(&Start<'_>) -> Option<String>,
    /// What a directory with these entries is.
    pub directory: fn(&Entries) -> Option<String>,
    /// What to do with it.
    pub hint: &'static str,
}

impl Foreign {
    /// The fault for what was seen.
    #[must_use]
    pub fn fault(&self, what: String) -> Fault {
        Fault::new(self.kind, what).hint(self.hint)
    }
}

/// For a row that is no file, or no directory.
pub(super) fn never<T>(_: &T) -> Option<String> {
    None
}
