//! What a row of the table says of a format of directories: of one that tells its own layout.

use crate::catalog::{Entry, FileSchema, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::dcp::Content;
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::formats::progress::Progress;
use crate::store::formats::values::PathPart;
use crate::store::io::{self, ReadFile, Standing};
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// What lies in a directory: names, each with whether it is a directory itself.
pub type Names = [(String, bool)];

/// The names of each rank's files.
pub type RankFiles = BTreeMap<u32, BTreeSet<String>>;

/// The names of the tensors that each file counts for, by the file's own name.
pub type Counted = BTreeMap<String, BTreeSet<Arc<str>>>;

/// A small file that tells of the others: its name, and the most bytes of it that are read.
pub type Text = (&'static str, u64);

/// A format of directories that tell their own layout. Such a directory holds a checkpoint, or several
/// by number.
pub trait DirectoryFormat: Sync {
    /// Its name, as `--format` has it.
    fn name(&self) -> &'static str;

    /// What one of it is called in messages, with its article.
    fn called(&self) -> &'static str;

    /// What it is, in a few words.
    fn about(&self) -> &'static str;

    /// Whether each has its number, as a trainer numbers what it saves.
    fn is_numbered(&self) -> bool {
        !self.directory(0).is_empty()
    }

    /// Whether `path`, with these entries, is of it or holds some of it: gives the directory inside
    /// `path` (`""`, or with a `/` at the end) of the checkpoint with this number, or else of the last
    /// complete one. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`] if it can't be told which is meant, naming the file.
    fn recognise(&self, path: &Path, names: &Names, number: Option<&str>)
    -> Result<Option<String>>;

    /// The numbers of the checkpoints in a directory with these entries; none where each directory is one.
    fn numbers(&self, names: &Names) -> Vec<u64> {
        let _ = names;
        Vec::new()
    }

    /// The directory of checkpoint `number`.
    fn directory(&self, number: u64) -> String {
        let _ = number;
        String::new()
    }

    /// The number of the last complete checkpoint in `base`, if that is told, and the file that tells
    /// it. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    fn last(&self, base: &Path) -> Result<(Option<u64>, &'static str)>;

    /// The files of the checkpoint in `place` that there ought to be, by what lies there: those that are there, and
    /// those that these tell of. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] and others, naming the file.
    fn list(&self, place: &Path) -> Result<RankFiles>;

    /// What is said of `file` of `rank`, which [`DirectoryFormat::list`] has and nobody finds.
    fn absent(&self, rank: u32, file: &str) -> Fault {
        let _ = file;
        let message = "is missing: other files tell of it, and no process finds it";
        Fault::new(Kind::MissingShard, message).rank(rank)
    }

    /// What there is to say of the checkpoint in `place`, damaged or not. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    fn glimpse(&self, place: &Path) -> Result<Glimpse> {
        let mut glimpse = Glimpse::default();
        match self.list(place) {
            Ok(files) => glimpse.files = each(files),
            Err(fault) if fault.kind == Kind::Io => return Err(fault),
            Err(fault) => {
                let file = fault.file.as_deref().map(Path::new);
                let file = file.map(|file| file.strip_prefix(place).unwrap_or(file));
                let named = file.map(|file| format!("{} ", file.display()));
                glimpse.why = Some(format!("{}{}", named.unwrap_or_default(), fault.message));
            }
        }
        Ok(glimpse)
    }

    /// The small files that tell of the others, that which lists them first.
    fn texts(&self) -> &'static [Text];

    /// What these texts tell: one for each of [`DirectoryFormat::texts`], where there is one.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] and others, naming the file inside the directory.
    fn read(&self, texts: &[Option<Vec<u8>>]) -> Result<Own>;

    /// The part of one of its files that tells where the job stands, where none of its texts does: the file, of
    /// `files` inside the checkpoint, and bytes of it.
    fn stand(&self, own: &Own, files: &[&str]) -> Option<(String, Range<u64>)> {
        let _ = (own, files);
        None
    }

    /// Where the job stands, as these bytes tell.
    fn stands(&self, bytes: &[u8]) -> Progress {
        let _ = bytes;
        Progress::default()
    }

    /// Whether it is of Megatron's making: layers are stacked where it is written, gates lie before ups, and
    /// names are Megatron's.
    fn stacks_layers(&self) -> bool {
        false
    }

    /// The structure of `file`, called `name` inside the checkpoint, where it doesn't tell that itself:
    /// by what the checkpoint tells. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] and others, naming the file.
    fn structure(&self, own: &Own, name: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        let _ = (own, name, file);
        Ok(None)
    }

    /// Whether [`DirectoryFormat::structure`] tells that of its files, or files tell it themselves.
    fn tells_structure(&self) -> bool {
        !self.files().tells_itself()
    }

    /// Checks that `files`, which no text lists, are all that there were to be. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`], naming the missing file inside the directory.
    fn check_unlisted(&self, files: &[&str]) -> Result<()>;

    /// Whether it tells which files there were to be: what lacks is found then.
    fn tells_files(&self) -> bool {
        true
    }

    /// The keys of its files' metadata that tell how its own parts lie, and nothing of what is made of them.
    fn own_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a file of this name and structure says by itself that it is one of several of it.
    fn is_part(&self, name: &str, schema: &FileSchema) -> bool {
        let _ = (name, schema);
        false
    }

    /// The format of its files.
    fn files(&self) -> Format;

    /// Whether checkpoints of `other` lie beside its own, made of them.
    fn shares(&self, other: &dyn DirectoryFormat) -> bool {
        let _ = other;
        false
    }

    /// Names of tensors that it keeps apart from the others, in one of its texts.
    fn apart(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a tensor of this name that a rank has for itself isn't written as one: it is kept apart.
    fn drops(&self, asked: &DirectoryAsked, name: &str) -> bool {
        let _ = asked;
        self.apart().contains(&name)
    }

    /// Whether it has what is no tensor as PyTorch's distributed checkpoint has it, an archive each.
    fn keeps_values(&self) -> bool {
        false
    }

    /// Whether it is written.
    fn is_written(&self) -> bool {
        true
    }

    /// Which files there are to be for `laid`, and what is in each. A pure function.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a layout that it can't express, or if it isn't written.
    fn design<'a>(&self, asked: &DirectoryAsked, laid: &'a Laid) -> Result<Vec<DirectoryFile<'a>>> {
        let _ = (asked, laid);
        Err(only_read(self.called()))
    }

    /// The texts that go with `files`. A pure function.
    ///
    /// # Errors
    /// As [`DirectoryFormat::design`].
    fn finish(
        &self,
        asked: &DirectoryAsked,
        files: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    ) -> Result<Vec<SmallFile>> {
        let _ = (asked, files);
        Err(only_read(self.called()))
    }

    /// Whether a trainer keeps a file of this path, inside a directory that holds some of it.
    fn holds(&self, path: &str) -> bool;
}

fn only_read(called: &str) -> Fault {
    Fault::new(Kind::Unsupported, format!("{called} is read, not written"))
}

/// The file beside numbered checkpoints that names the last one, as Megatron does it and others after it.
pub const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// What [`TRACKER`] in `base` says, if it is there. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(super) fn tracked(base: &Path) -> Result<Option<String>> {
    let path = base.join(TRACKER);
    if io::standing(&path)? != Standing::File {
        return Ok(None);
    }
    let text = ReadFile::open(&path)?.read_all(64).unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// Whether `names` have this one, of a directory (`folder`) or of a file.
pub(super) fn has(names: &Names, wanted: &str, folder: bool) -> bool {
    names
        .iter()
        .any(|(name, is_folder)| name == wanted && *is_folder == folder)
}

/// Rank and name of each of `files`.
pub(super) fn each(files: RankFiles) -> Vec<(u32, String)> {
    let files = files.into_iter();
    let files = files.flat_map(|(rank, files)| files.into_iter().map(move |file| (rank, file)));
    files.collect()
}

/// What a checkpoint tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its layouts; none for one of a single card.
    pub strategy: Option<Strategy>,
    /// Where the job stands.
    pub progress: Progress,
    /// Its files, where one of its texts lists them.
    pub files: Option<RankFiles>,
    /// The tensors that each of them counts for, where that text tells it: what else a file has of these doesn't.
    pub counted: Option<Counted>,
    /// What is in these, by name, where they don't tell it themselves.
    pub entries: BTreeMap<String, Vec<Entry>>,
    /// Of a distributed checkpoint of PyTorch: what is in its files, by name.
    pub contents: BTreeMap<String, Content>,
    /// Of a checkpoint 2.0: whether the trainer of dynamic graphs wrote it.
    pub dynamic: bool,
    /// What that trainer says of an adapter: the file's name, and its text.
    pub adapter: Option<(&'static str, Vec<u8>)>,
    /// The paths that its flat names were made of, but for names that are their own path.
    pub paths: BTreeMap<String, Vec<PathPart>>,
}

/// What there is to say of a checkpoint that may be damaged.
#[derive(Clone, Debug, Default)]
pub struct Glimpse {
    /// Where the job stands, as far as it tells.
    pub progress: Progress,
    /// Rank and name of each file that there ought to be.
    pub files: Vec<(u32, String)>,
    /// Why it can't be used, if it can't.
    pub why: Option<String>,
}
