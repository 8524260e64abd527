//! Every layout that so many devices can have of a model, with what it would cost.

use crate::fault::Result;
use crate::fault::plain::Text;
use crate::measure::each::plan_each;
use crate::measure::simulate::Question;
use crate::model::derive::Derived;
use crate::plan::simulate::Shapes;
use crate::report::unit::written;
use crate::strategy::Strategy;
use crate::tensor::dtype::Dtype;
use serde_json::{Value, json};

/// Nodes that are planned for in each layout; of more, some stand for the others.
const NODES_MAX: usize = 8;

/// What each of `layouts` would cost, for programs and for people; whether the optimizer's `states` count, too. Local.
///
/// # Errors
/// As planning.
pub(super) fn table(
    question: &Question,
    shapes: &Shapes,
    source: Option<&Strategy>,
    (layouts, states): (&[(String, Derived)], bool),
    tell: &mut dyn FnMut(u64, u64),
) -> Result<(Value, Text)> {
    // Those of the optimizer come first, by name.
    let weights = shapes.last().map_or(Dtype::BF16, |(_, dtype, _)| *dtype);
    let question = Question {
        nodes_max: Some(NODES_MAX),
        ..question.clone()
    };
    let make = |number: usize| layouts[number].1.strategy();
    let all = plan_each(&question, shapes, source, layouts.len(), &make, tell)?;
    let mut text = Text::new(format_args!(
        "{:>12} {:>10} {:>10} {:>10}  layout",
        "largest file", "read", "exchanged", "seconds"
    ));
    let mut rows: Vec<Value> = Vec::new();
    for ((parallel, derived), simulated) in layouts.iter().zip(all) {
        let largest = derived.largest_bytes(weights, states);
        let (bytes, seconds) = (&simulated.bytes, simulated.plan.seconds_estimated);
        text.line(format_args!(
            "{:>12} {:>10} {:>10} {seconds:>10.3}  {parallel}",
            written(largest),
            written(bytes.read),
            written(bytes.received)
        ));
        rows.push(json!({
            "parallel": parallel, "largest_file_bytes": largest, "bytes": {
                "read": bytes.read, "received": bytes.received, "written": bytes.written,
            }, "seconds_estimated": seconds, "processes_planned": simulated.processes_planned,
        }));
    }
    Ok((json!({ "layouts": rows, "states": states }), text))
}
