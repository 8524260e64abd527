//! `--step`: rank files under the names that a trainer resumes from.

use crate::cli::flags::writing::WriteArgs;
use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::{Files, Naming};
use crate::store::formats::Progress;
use clap::Args;

/// Beginning of the files' names.
const PREFIX: &str = "net";

/// Where in a run the result stands.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepArgs {
    /// Name the files of ranks as a trainer does after step N of epoch 1, or N of epoch E, with the
    /// meta.json that it looks for; beside full weights, that alone.
    #[arg(long, value_name = "N|E_N", value_parser = parse_step)]
    pub(crate) step: Option<(u64, u64)>,
}

impl StepArgs {
    /// The files to write: `otherwise`, files of ranks, where no step is given.
    ///
    /// # Errors
    /// [`Kind::Usage`] where no files of ranks are written.
    pub(crate) fn files(&self, otherwise: Files, writing: &WriteArgs) -> Result<Files> {
        let Some(position) = self.step else {
            return Ok(otherwise);
        };
        let (epoch, step) = position;
        match otherwise {
            Files::Ranks {
                remove_redundancy, ..
            } if writing.directory().is_none() => Ok(Files::Resume {
                prefix: PREFIX.to_owned(),
                ending: format!("-{epoch}_{step}"),
                position,
                remove_redundancy,
            }),
            Files::Full { .. } if writing.directory().is_none() => Ok(otherwise),
            _ => {
                let message =
                    format!("--step {epoch}_{step} names files of ranks, and none are written");
                Err(Fault::new(Kind::Usage, message)
                    .hint("--dst-strategy cuts into ranks; leave out --step, or --format"))
            }
        }
    }
}

impl StepArgs {
    /// Where the job stands, as far as a step in its first epoch tells it: the count of all steps is that
    /// step's then.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let (epoch, step) = self.step.filter(|(epoch, _)| *epoch == 1)?;
        Some(Progress {
            epoch_num: Some(epoch),
            step_num: Some(step),
            global_step: Some(step),
            ..Progress::default()
        })
    }

    /// The `meta.json` of full weights, which says where they stand: it names what leads to their files.
    pub(crate) fn beside(&self, files: &Files) -> Vec<(String, Vec<u8>)> {
        let (Some((epoch, step)), Files::Full { naming, .. }) = (self.step, files) else {
            return Vec::new();
        };
        let file = match naming {
            Naming::Mindspore => "part0.safetensors",
            _ => "model.safetensors.index.json",
        };
        let meta = serde_json::json!({
            "last_epoch": epoch, "last_step": step, "last_ckpt_file": file,
        });
        vec![("meta.json".to_owned(), meta.to_string().into_bytes())]
    }
}

/// `20`, or `2_20`: epoch and step, both from 1.
fn parse_step(text: &str) -> std::result::Result<(u64, u64), String> {
    let (epoch, step) = text.split_once('_').unwrap_or(("1", text));
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
    number(epoch)
        .zip(number(step))
        .ok_or_else(|| "expected a step, as 20, or epoch and step, as 2_20".to_owned())
}
