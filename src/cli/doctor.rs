//! `shardloom doctor`: what of this machine a job would stumble over.

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::moving::ProgressArgs;
use crate::cli::flags::report::ReportArgs;
use crate::fault::Result;
use crate::fault::plain::{Text, first};
use crate::measure::doctor::{Examined, State, examine};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  shardloom doctor
  mpirun -n 8 shardloom doctor /scratch/checkpoints
  mpirun -n 8 shardloom doctor --json . /shared/models";

/// Nodes that are named in a line.
const NAMED_MAX: usize = 3;

/// Look at MPI, limits, memory, clocks and file systems before a job does.
///
/// Every line is right, odd (jobs run, but slower or with less) or wrong (jobs fail), and says what to
/// change. Exit code 1 if anything is wrong. Start it as the job will be started.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Directories that results go to or sources lie in.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Command for Doctor {
    fn prepare(self) -> Result<Prepared> {
        let none = ReportArgs::default();
        Ok(Prepared::told(
            &self.progress.clone(),
            none,
            move |world, _| {
                let examined = examine(world, &self.paths)?;
                let (ok, text) = (examined.ok, shown(&examined));
                Ok(Told::new(ok, move |report| report.data(&examined, &text)))
            },
        ))
    }
}

fn shown(examined: &Examined) -> Text {
    let mut text = Text::default();
    let mut topic = "";
    for finding in &examined.findings {
        if finding.topic != topic {
            text.line(&finding.topic);
            topic = &finding.topic;
        }
        let state = match finding.state {
            State::Right => "right",
            State::Odd => "odd  ",
            _ => "WRONG",
        };
        // Where all nodes have it, none is named.
        let everywhere = finding.nodes.is_empty() || finding.nodes.len() == examined.nodes.len();
        let place = if everywhere {
            String::new()
        } else {
            format!(" [{}]", first(&finding.nodes, NAMED_MAX))
        };
        text.line(format!("  {state}  {}{place}", finding.found));
        if let Some(advice) = &finding.advice {
            text.line(format!("         {advice}"));
        }
    }
    let count = |state| {
        let of_it = examined
            .findings
            .iter()
            .filter(|finding| finding.state == state);
        of_it.count()
    };
    let (odd, wrong) = (count(State::Odd), count(State::Wrong));
    text.line(match (wrong, odd) {
        (0, 0) => "all is right".to_owned(),
        (0, odd) => format!("nothing is wrong, {odd} odd"),
        (wrong, odd) => format!("{wrong} wrong, {odd} odd"),
    });
    text
}
