//! `shardloom reshard`: from one layout into another.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::lora::LoraArgs;
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{CheckArgs, SelectArgs, SourceArgs};
use crate::cli::flags::remake::RemakeArgs;
use crate::cli::flags::strategy::NetworkArgs;
use crate::cli::flags::writing::{CutArgs, RedundancyArgs, WriteArgs};
use crate::destination::Writing;
use crate::fault::Result;
use crate::front::Deriving;
use crate::job::{Goal, Job, Write};
use crate::plan::arrange::{Files, RankName};
use crate::plan::build::Leftovers;
use crate::source::is_told_apart;
use crate::store::formats::laid::DirectoryAsked;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom reshard --src ckpt --src-strategy strategy --dst out --dst-strategy new
  shardloom reshard --src ckpt --src-strategy strategy --dst-strategy new --in-place
  shardloom reshard --src ckpt --src-strategy strategy --dst full --dry-run";

/// The beginning of a rank file's name where none is given.
const PREFIX: &str = "net";

/// Distributed weights -> distributed weights in another layout.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Reshard {
    #[command(flatten)]
    source: SourceArgs,
    /// Directory to write.
    #[arg(long, required_unless_present = "in_place")]
    dst: Option<PathBuf>,
    /// Replace the source by its new layout, in one step, when that is complete: file names keep
    /// their pattern, other files stay.
    #[arg(long, conflicts_with_all = ["dst", "prefix", "overwrite", "lora", "lora_scaling"])]
    in_place: bool,
    /// Don't copy files that stay as they are, byte for byte: both checkpoints share them, where the file
    /// system can, so nothing may write into either in place.
    #[arg(long, conflicts_with = "in_place")]
    link: bool,
    #[command(flatten)]
    cut: CutArgs,
    /// Beginning of the written files' names, as in rank_R/{prefix}R.safetensors [default: files that a
    /// trainer has saved keep their names, with a meta.json to resume from; else net].
    #[arg(long, value_parser = parse_stem)]
    prefix: Option<String>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    form: RemakeArgs,
    #[command(flatten)]
    redundancy: RedundancyArgs,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Reshard {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let (deriving, job) = self.job()?;
        Prepared::derived(&moving, deriving, job)
    }
}

impl Reshard {
    /// The job, and what its strategies are derived from.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    pub(crate) fn job(self) -> Result<(Deriving, Job)> {
        let destination = self.dst.as_ref().unwrap_or(&self.source.src);
        let remove_redundancy = self.redundancy.remove_redundancy;
        let prefix = self.prefix.as_deref().unwrap_or(PREFIX);
        let files = Files::Ranks {
            name: RankName::new(prefix, true),
            remove_redundancy,
        };
        let files = if self.prefix.is_none() && !self.in_place {
            Files::AsSource(Box::new(files))
        } else {
            files
        };
        let asked = DirectoryAsked {
            prefix: self.prefix.clone().filter(|prefix| prefix != PREFIX),
            remove_redundancy,
            ..DirectoryAsked::default()
        };
        let select = self.select.select()?;
        let selected = !(select.written.is_empty() && select.filter_out_prefixes.is_empty());
        let (names, model) = (self.network.names, self.network.model.model.as_deref());
        let view = self.form.view(names, model, selected)?;
        let remade = view.is_some();
        let job = Job {
            command: "reshard",
            reading: self.source.reading(&self.checks, self.lora.derived()?),
            goal: Goal::Write(Box::new(Write {
                select,
                leftovers: Leftovers::Reshard(self.checks.unmatched.unmatched),
                files: self.writing.files(files, asked),
                format: self.writing.files_format(),
                view,
                extras: Vec::new(),
                step: None,
                writing: Writing {
                    in_place: self.in_place,
                    link: self.link,
                    ..self
                        .writing
                        .writing(destination.clone(), self.cut.dst_strategy.clone())
                        .keeping(&self.select.names.name_map)
                },
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        };
        let mut deriving = self.network.deriving(&self.source.src);
        if remade {
            deriving.renamed = deriving.names.take();
            deriving.rejoined = self.form.joined();
        }
        Ok((deriving, job))
    }
}

/// A beginning of a file name: no separators, and none that would make names which can't be read again.
fn parse_stem(text: &str) -> std::result::Result<String, String> {
    if text.contains('/') || text.contains('\0') {
        return Err("a prefix is part of a file name, without '/'".into());
    }
    if !is_told_apart(text) {
        return Err(
            "files called so could not be read again: the rank's number follows a letter or '_', and no '.' \
             stands first"
                .into(),
        );
    }
    Ok(text.to_owned())
}
