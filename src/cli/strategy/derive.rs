//! `shardloom strategy derive`: the strategy that a training job would write.

use super::rank_files::{check_directory, write_directory};
use crate::cli::flags::choice::choice;
use crate::cli::flags::family::SCHEMES;
use crate::cli::output::check_strategy;
use crate::fault::plain::Text;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::model::Scheme;
use crate::model::derive::{Derived, Job, Seen, configured, derive, usual};
use crate::report::Report;
use crate::store::single::write_single;
use crate::strategy::Form;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What it is derived from, and where it goes.
#[derive(Clone, Debug, Args)]
pub(super) struct DeriveArgs {
    /// The trainer's configuration (YAML).
    #[arg(
        long,
        value_name = "YAML",
        required_unless_present_any = ["parallel", "sizes"],
        conflicts_with = "sizes"
    )]
    config: Option<PathBuf>,
    /// In place of a configuration: the usual job on so many ranks; dp, tp, pp, cp and ep, each 1 if left
    /// out, and opt, the pieces of the optimizer shard (-1: all replicas). Example: dp=2,tp=4,pp=2.
    #[arg(
        long,
        value_name = "SIZES",
        conflicts_with_all = ["config", "sizes"],
        requires = "model"
    )]
    parallel: Option<String>,
    #[command(flatten)]
    sizes: SizeArgs,
    /// The model's directory, or its config.json [default: the configuration's `pretrained_model_dir`].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Names of the network's tensors [default: those of the family's usual job].
    #[arg(long, conflicts_with = "config", value_parser = choice(SCHEMES))]
    names: Option<Scheme>,
    /// Directory to write: a file for each rank, named as the trainer names them.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// One file with all stages to write, too.
    #[arg(long, value_name = "FILE")]
    merged: Option<PathBuf>,
    /// Write JSON in place of protobuf.
    #[arg(long)]
    json_form: bool,
    /// Replace what is there.
    #[arg(long)]
    overwrite: bool,
}

/// The same as `--parallel`, each size by itself.
#[derive(Clone, Debug, Args)]
#[group(id = "sizes", multiple = true, requires = "model")]
struct SizeArgs {
    /// Ranks that split the batch (data parallel).
    #[arg(long, value_name = "N")]
    dp: Option<u64>,
    /// Ranks that share each layer's tensors (tensor parallel).
    #[arg(long, value_name = "N")]
    tp: Option<u64>,
    /// Stages of the pipeline.
    #[arg(long, value_name = "N")]
    pp: Option<u64>,
    /// Ranks that share a sequence (context parallel).
    #[arg(long, value_name = "N")]
    cp: Option<u64>,
    /// Ranks that share the experts (expert parallel).
    #[arg(long, value_name = "N")]
    ep: Option<u64>,
    /// Pieces of the optimizer shard; -1: all replicas.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    opt_shard: Option<i64>,
}

impl SizeArgs {
    /// As `--parallel` has them; none if none is given.
    fn parallel(&self) -> Option<String> {
        let sizes = [
            ("dp", self.dp),
            ("tp", self.tp),
            ("pp", self.pp),
            ("cp", self.cp),
            ("ep", self.ep),
        ];
        let sizes = sizes
            .iter()
            .filter_map(|(name, size)| Some((*name, (*size)?.to_string())));
        let shard = self.opt_shard.map(|pieces| ("opt", pieces.to_string()));
        let given: Vec<String> = sizes
            .chain(shard)
            .map(|(name, size)| format!("{name}={size}"))
            .collect();
        (!given.is_empty()).then(|| given.join(","))
    }
}

impl DeriveArgs {
    /// Derives and writes.
    pub(super) fn run(&self, report: &Report) -> Result<()> {
        let form = if self.json_form {
            Form::Json
        } else {
            Form::Protobuf
        };
        if let Some(merged) = &self.merged {
            check_name(merged, form)?;
            let config = self.config.iter().map(|path| ("configuration", path));
            let inputs = config.chain(self.model.iter().map(|path| ("model", path)));
            let inputs = inputs.map(|(what, path)| (what, path.as_path()));
            check_strategy(merged, self.overwrite, &inputs.collect::<Vec<_>>())?;
        }
        check_directory(&self.output, self.overwrite)?;
        let job = self.job()?;
        let derived = derive(&job)?;
        for doubt in &derived.doubts {
            tracing::warn!("{doubt}");
        }
        let files = derived.files(form)?;
        write_directory(
            &self.output,
            self.overwrite,
            &files,
            derived.ranks_per_stage(),
            form,
        )?;
        if let Some(merged) = &self.merged {
            write_single(merged, &Derived::merged(form, &files)?)?;
        }
        self.tell(&derived, files.len(), report)
    }

    fn job(&self) -> Result<Job> {
        let parallel = self.parallel.clone().or_else(|| self.sizes.parallel());
        match (&self.config, parallel, &self.model) {
            (Some(config), _, model) => configured(config, model.as_deref()),
            (None, Some(parallel), Some(model)) => {
                let seen = Seen {
                    names: self.names,
                    ..Seen::default()
                };
                usual(&parallel, &seen, model)
            }
            _ => Err(Fault::new(
                Kind::Usage,
                "give --config, or --parallel (or --dp, --tp, …) and --model",
            )),
        }
    }

    fn tell(&self, derived: &Derived, stages: usize, report: &Report) -> Result<()> {
        if report.quiet && !report.json {
            return Ok(());
        }
        let (ranks, layouts) = (derived.ranks(), derived.layouts());
        let data = json!({
            "output": self.output.display().to_string(),
            "merged": self.merged.as_ref().map(|path| path.display().to_string()),
            "ranks": ranks,
            "stages": stages,
            "layouts": layouts,
        });
        let text = format!(
            "{}: {} of {}, {}",
            self.output.display(),
            counted(ranks.into(), "file"),
            counted(stages as u64, "stage"),
            counted(layouts as u64, "layout")
        );
        report.data(&data, &Text::new(text))
    }
}

/// Programs go by the name of a file.
fn check_name(merged: &Path, form: Form) -> Result<()> {
    if Form::of(&merged.display().to_string()) == form {
        return Ok(());
    }
    let (what, hint) = match form {
        Form::Json => ("its name must end in .json", "it is read by its name"),
        Form::Protobuf => ("its name must not end in .json", "or give --json-form"),
    };
    let fault = Fault::new(Kind::Usage, format!("--merged: {what}"));
    Err(fault.file(merged.display().to_string()).hint(hint))
}
