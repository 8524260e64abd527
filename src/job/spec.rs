//! What a job is: what to read, what to make of it, and where that goes.

use crate::catalog::SmallFile;
use crate::destination::Writing;
use crate::fault::Result;
use crate::plan::arrange::Files;
use crate::plan::build::{Leftovers, Select};
use crate::plan::inventory::Inventory;
use crate::source::Reading;
use crate::store::Format;
use crate::transport::Moving;
use crate::view::Table;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What to make of what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job {
    /// Name of the command, for the outcome.
    pub command: &'static str,
    /// What is read.
    pub reading: Reading,
    /// What becomes of it.
    pub goal: Goal,
    /// How bytes are moved.
    pub moving: Moving,
    /// Plan only.
    pub dry_run: bool,
}

impl Job {
    /// A job of a process's whole memory and threads, which doesn't stop at its plan.
    ///
    /// ```
    /// use shardloom::destination::Writing;
    /// use shardloom::job::{Goal, Job, Write};
    /// use shardloom::plan::arrange::{Files, RankName};
    /// use shardloom::plan::build::{Leftovers, Unmatched};
    /// use shardloom::source::Reading;
    ///
    /// # fn main() -> shardloom::fault::Result<()> {
    /// # std::env::set_current_dir("tests/data/reshard_8_to_4").unwrap();
    /// # let room = tempfile::tempdir().unwrap();
    /// # let new = room.path().join("new");
    /// let world = shardloom::World::start()?;
    /// let mut writing = Writing::into(&new);
    /// writing.strategy = Some("strategy/dst.ckpt".into());
    /// let files = Files::Ranks { name: RankName::new("net", true), remove_redundancy: false };
    /// let write = Write::new(Leftovers::Reshard(Unmatched::Fail), files, writing);
    /// let reading = Reading::checkpoint("src".into(), Some("strategy/src.ckpt".into()), None);
    /// let job = Job::new("reshard", reading, Goal::Write(Box::new(write)));
    /// let outcome = shardloom::job::run(&world, &job, &mut |_, _| {})?;
    /// assert!(outcome.ok);
    /// world.finish()
    /// # }
    /// ```
    #[must_use]
    pub fn new(command: &'static str, reading: Reading, goal: Goal) -> Job {
        Job {
            command,
            reading,
            goal,
            moving: Moving::default(),
            dry_run: false,
        }
    }
}

/// What becomes of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Goal {
    /// Its tensors are written, in a layout.
    Write(Box<Write>),
    /// Each file is written as it is, in another format.
    Convert(Box<Convert>),
    /// Its tensors are compared with another's.
    Compare(Box<Comparing>),
}

impl Goal {
    /// Where it is written, if it is.
    #[must_use]
    pub fn writing(&self) -> Option<&Writing> {
        match self {
            Goal::Write(write) => Some(&write.writing),
            Goal::Convert(convert) => Some(&convert.writing),
            Goal::Compare(_) => None,
        }
    }
}

/// What is compared, and how closely.
#[derive(Clone, Debug)]
pub struct Comparing {
    /// The other side.
    pub other: Reading,
    /// Names that begin so are left out.
    pub filter_out_prefixes: Vec<String>,
    /// What the other side calls tensors of this one, where it is something else.
    pub names: BTreeMap<String, String>,
    /// How far elements may be apart and be taken for equal; none: bit for bit.
    pub tolerance: Option<f64>,
    /// How many tensors are told of in a text.
    pub lines_max: Option<usize>,
}

impl Comparing {
    /// All of it, bit for bit, with this.
    #[must_use]
    pub fn of(other: Reading) -> Comparing {
        Comparing {
            other,
            filter_out_prefixes: Vec::new(),
            names: BTreeMap::new(),
            tolerance: None,
            lines_max: None,
        }
    }
}

/// Tensors to write.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Write {
    /// Which tensors, and their names.
    pub select: Select,
    /// How tensors outside the destination's strategy travel.
    pub leftovers: Leftovers,
    /// The files to write.
    pub files: Files,
    /// Their format; none means the source's.
    pub format: Option<Format>,
    /// What the tensors written are made of; none: each of itself.
    pub view: Option<ViewMaker>,
    /// Small files to write beside the others.
    pub extras: Vec<SmallFile>,
    /// Epoch and step in it, from 1, where the job stands that goes on with it; they count where the source
    /// doesn't say.
    pub step: Option<(u64, u64)>,
    /// Where they are written, and how.
    pub writing: Writing,
}

impl Write {
    /// All tensors as they are, to `files`, in the source's format.
    #[must_use]
    pub fn new(leftovers: Leftovers, files: Files, writing: Writing) -> Write {
        Write {
            select: Select::default(),
            leftovers,
            files,
            format: None,
            view: None,
            extras: Vec::new(),
            step: None,
            writing,
        }
    }
}

/// Files to write in another format.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Convert {
    /// Format to write.
    pub format: Format,
    /// Name read -> name written.
    pub name_map: BTreeMap<String, String>,
    /// Append a CRC to ckpt files.
    pub crc: bool,
    /// Where they are written, and how.
    pub writing: Writing,
}

impl Convert {
    /// All files in `format`, under their tensors' own names, without a CRC.
    #[must_use]
    pub fn new(format: Format, writing: Writing) -> Convert {
        Convert {
            format,
            name_map: BTreeMap::new(),
            crc: false,
            writing,
        }
    }
}

/// A view of a source that is known only when its files are: what to make, and what the files say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Viewed {
    /// What each tensor written is made of.
    pub table: Table,
    /// The metadata of the files written.
    pub metadata: BTreeMap<String, String>,
    /// Small files that go along with it.
    pub extras: Vec<SmallFile>,
    /// What is to be said of it.
    pub notes: Vec<String>,
    /// Source tensors that are left out as copies of others, and these.
    pub copies: Vec<(Arc<str>, Arc<str>)>,
}

type MakeView = dyn Fn(&Inventory, &BTreeMap<String, String>) -> Result<Viewed> + Send + Sync;

/// Makes the view of a source from its tensors and its files' metadata. A pure function: every
/// process makes the same.
#[derive(Clone)]
pub struct ViewMaker(pub(super) Arc<MakeView>);

impl ViewMaker {
    /// A maker that calls `make`.
    pub fn new(
        make: impl Fn(&Inventory, &BTreeMap<String, String>) -> Result<Viewed> + Send + Sync + 'static,
    ) -> Self {
        ViewMaker(Arc::new(make))
    }
}

impl std::fmt::Debug for ViewMaker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ViewMaker")
    }
}
