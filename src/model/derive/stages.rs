//! Which stage has which layer.

use super::job::Job;
use crate::fault::{Fault, Kind, Result};

/// The stage of each layer, and of what follows the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stages {
    /// One a layer.
    pub(super) layers: Vec<u32>,
    /// The output's.
    pub(super) last: u32,
}

fn wrong(message: String) -> Fault {
    Fault::new(Kind::Config, message)
}

/// Deals `count` layers: chunk by chunk, stage by stage.
///
/// # Errors
/// [`Kind::Config`] if the offsets don't come to the number of layers, or a stage in between has none.
pub(super) fn deal(job: &Job, count: u64) -> Result<Stages> {
    let stages = job.mesh.stages;
    let slots = stages.saturating_mul(job.chunks);
    let each = match job.chunks {
        1 => String::new(),
        chunks => format!(" * pp_interleave_num {chunks}"),
    };
    if slots > count {
        let message = format!("pipeline_stage {stages}{each} is more than the {count} layers");
        return Err(wrong(message).hint(format!("at most {count} fit")));
    }
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let offsets = job.offset.spread(size(job.chunks), size(stages))?;
    let (even, rest) = (count / slots, count % slots);
    if i128::from(job.offset.sum()) != i128::from(rest) {
        let message = match job.offset.is_none() {
            true => format!(
                "pipeline_stage {stages}{each} doesn't divide the {count} layers, and offset is 0"
            ),
            false => format!(
                "offset comes to {}, but {count} layers in pipeline_stage {stages}{each} leave {rest}",
                job.offset.sum()
            ),
        };
        return Err(wrong(message).hint(fitting(job, rest)));
    }
    let mut layers = Vec::new();
    for (chunk, row) in offsets.iter().enumerate() {
        for (stage, offset) in row.iter().enumerate() {
            let ends = (chunk == 0 && stage == 0)
                || (chunk + 1 == offsets.len() && stage + 1 == row.len());
            let own = i128::from(even) + i128::from(*offset);
            if own < i128::from(!ends) {
                let message = format!("offset leaves {own} layers to stage {stage}");
                return Err(wrong(message)
                    .hint("the first and the last part may have none, all others at least one"));
            }
            // With zero_bubble_v every second chunk runs backwards.
            let place = if job.vee && chunk % 2 == 1 {
                row.len() - 1 - stage
            } else {
                stage
            };
            let at = u32::try_from(place).unwrap_or(u32::MAX);
            let own = usize::try_from(own).unwrap_or(usize::MAX);
            let left = size(count).saturating_add(1).saturating_sub(layers.len());
            layers.extend(std::iter::repeat_n(at, own.min(left)));
        }
    }
    if layers.len() != size(count) {
        let message =
            format!("offset comes to another number of layers than the {count} there are");
        return Err(wrong(message).hint(fitting(job, rest)));
    }
    let last = if job.vee { 0 } else { stages - 1 };
    Ok(Stages {
        layers,
        last: u32::try_from(last).unwrap_or(u32::MAX),
    })
}

/// What would fit: one more for as many of the first parts as there are layers left.
fn fitting(job: &Job, rest: u64) -> String {
    let row = |chunk: u64| {
        let stages = 0..job.mesh.stages.min(64);
        let more = stages.map(|stage| u8::from(chunk * job.mesh.stages + stage < rest).to_string());
        format!("[{}]", more.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..job.chunks.min(64)).map(row).collect();
    let typed = |rows: String| rows.replace("[", "").replace(", ", ":").replace(']', "");
    match &rows[..] {
        _ if rest == 0 => "offset: 0 fits".to_owned(),
        [one] => format!(
            "offset: {one} fits; in a layout offset={}",
            typed(one.clone())
        ),
        _ => {
            let all = typed(rows.join("/"));
            format!(
                "offset: [{}] fits; in a layout offset={all}",
                rows.join(", ")
            )
        }
    }
}
