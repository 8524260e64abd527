//! `--step`: rank files under the names that a trainer resumes from.

use crate::catalog::SmallFile;
use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::{Files, Naming};
use crate::store::formats::Progress;
use crate::store::formats::laid::DirectoryAsked;
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
    /// The files to write: `otherwise`, where no step is given.
    ///
    /// # Errors
    /// [`Kind::Usage`] where what is written has no place for it.
    pub(crate) fn files(&self, otherwise: Files) -> Result<Files> {
        let Some(position) = self.step else {
            return Ok(otherwise);
        };
        let (epoch, step) = position;
        let wrong = |message: String, hint: &str| {
            let typed = if epoch == 1 {
                step.to_string()
            } else {
                format!("{epoch}_{step}")
            };
            let message = format!("--step {typed} {message}");
            Err(Fault::new(Kind::Usage, message).hint(hint))
        };
        match otherwise {
            Files::Ranks {
                remove_redundancy, ..
            } => Ok(Files::Resume {
                prefix: PREFIX.to_owned(),
                ending: format!("-{epoch}_{step}"),
                position,
                remove_redundancy,
            }),
            Files::Directory { format, .. } if !format.is_numbered() => {
                let message = format!("has no place in {}", format.called());
                wrong(message, "leave out --step, or --format")
            }
            Files::Directory { format, asked } => match Progress::at(position) {
                None => {
                    let all = format!(
                        "doesn't say which of all steps it is, and by that {} is called",
                        format.called()
                    );
                    wrong(all, "--step N: that of the whole run")
                }
                progress => Ok(Files::Directory {
                    format,
                    asked: DirectoryAsked { progress, ..asked },
                }),
            },
            otherwise => Ok(otherwise),
        }
    }

    /// The `meta.json` of full weights, which says where they stand: it names what leads to their files.
    pub(crate) fn beside(&self, files: &Files) -> Vec<SmallFile> {
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
        vec![SmallFile::new("meta.json", meta.to_string().into_bytes())]
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
