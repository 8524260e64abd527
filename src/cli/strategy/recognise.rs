//! `shardloom strategy recognise`: which layouts fit the shapes of rank files.

use crate::fault::plain::{Text, counted};
use crate::fault::{Fault, Kind, Result};
use crate::job::inspect::{Wanted, inspect};
use crate::model::derive::{Candidate, Held, recognise};
use crate::report::Report;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layouts told of those that don't fit.
const TOLD: usize = 3;

/// Of what.
#[derive(Clone, Debug, Args)]
pub(super) struct RecogniseArgs {
    /// Rank directories.
    directory: PathBuf,
    /// The model's directory, or its config.json.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Which of several files in a rank directory: epoch_step, step, task-epoch_step, or latest.
    #[arg(long)]
    file_suffix: Option<String>,
}

impl RecogniseArgs {
    /// Tells which fit; gives whether any does.
    pub(super) fn run(&self, report: &Report) -> Result<bool> {
        let candidates = candidates(&self.directory, self.file_suffix.as_deref(), &self.model)?;
        let any = candidates.iter().any(|candidate| candidate.fits);
        let data = json!({ "candidates": candidates });
        report.data(&data, &text(&candidates))?;
        Ok(any)
    }
}

/// The layouts that were tried for the rank files in `directory`, those that fit first. Local.
///
/// # Errors
/// [`Kind::Usage`] for what has no ranks, and as [`recognise`].
pub(crate) fn candidates(
    directory: &Path,
    suffix: Option<&str>,
    model: &Path,
) -> Result<Vec<Candidate>> {
    let inspected = inspect(directory, suffix, None, Wanted::default())?;
    let mut ranks: BTreeMap<u32, Held> = BTreeMap::new();
    for file in inspected.files {
        let held = ranks.entry(file.rank).or_default();
        let tensors = file.tensors.into_iter();
        held.extend(tensors.map(|tensor| (tensor.name, tensor.shape.0)));
    }
    if ranks.len() < 2 {
        let fault = Fault::new(Kind::Usage, "has no files of several ranks: nothing is cut");
        return Err(fault.file(directory.display().to_string()));
    }
    recognise(&ranks, model)
}

fn text(candidates: &[Candidate]) -> Text {
    let fitting = candidates.iter().filter(|candidate| candidate.fits);
    let fits = fitting.clone().count() as u64;
    let mut text = Text::new(match fits {
        0 => format!(
            "none of {} fits",
            counted(candidates.len() as u64, "layout")
        ),
        1 => "1 layout fits".to_owned(),
        fits => format!("{fits} layouts fit"),
    });
    for candidate in fitting {
        let same = candidate.same_as.as_ref();
        let same = same.map_or(String::new(), |same| {
            format!("  (the same parts as {same})")
        });
        let removed = match candidate.redundancy_removed {
            true => "  (one copy of each part was kept)",
            false => "",
        };
        text.line(format_args!("  {}{removed}{same}", candidate.parallel));
    }
    if fits == 0 {
        for candidate in candidates.iter().take(TOLD) {
            let why = candidate.why.as_deref().unwrap_or_default();
            text.line(format_args!("  {}: {why}", candidate.parallel));
        }
    }
    text
}
