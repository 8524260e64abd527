//! What `diff` found, for people.

use crate::fault::plain::{Text, counted};
use crate::job::outcome::{Outcome, TensorDifference};
use crate::report::layers::layers;

/// A row a tensor that isn't equal, then what they come to a layer, then the verdict.
pub(super) fn difference(outcome: &Outcome) -> Text {
    let mut out = Text::default();
    let unequal = |row: &&TensorDifference| row.state != "equal";
    let rows: Vec<&TensorDifference> = outcome.differences.iter().filter(unequal).collect();
    let told = outcome.lines_max.unwrap_or(rows.len()).min(rows.len());
    for row in &rows[..told] {
        out.line(format_args!("{}: {}", row.name, how(row)));
    }
    if told < rows.len() {
        let more = counted((rows.len() - told) as u64, "more tensor");
        out.line(format_args!("… {more} (--max-lines)"));
    }
    by_layer(&mut out, outcome, rows.len());
    for note in &outcome.notes {
        out.line(format_args!("note: {}", note));
    }
    let verdict = match (outcome.ok, outcome.tolerance) {
        (true, Some(most)) if !rows.is_empty() => {
            format!("equal within {most:e}")
        }
        (true, _) => "equal".into(),
        (false, _) => "different".into(),
    };
    let equal = outcome.differences.len() - rows.len();
    let of = counted(outcome.tensors, "tensor");
    let verb = if equal == 1 { "is" } else { "are" };
    out.line(format_args!(
        "{verdict}: {equal} of {of} {verb} equal, bit for bit"
    ));
    out
}

/// What is unequal about a tensor.
fn how(row: &TensorDifference) -> String {
    match (row.state, &row.a, &row.b) {
        ("differs", ..) => {
            let verb = if row.elements_differing == 1 {
                "differs"
            } else {
                "differ"
            };
            let by = match row.max_abs {
                0.0 => "in bits that make no other number".to_owned(),
                most if most.is_infinite() => {
                    "and not all are finite numbers on both sides".to_owned()
                }
                most => format!("by {most:.3e} at most ({:.3e} relative)", row.max_rel),
            };
            format!(
                "{} {verb}, {by}",
                counted(row.elements_differing, "element")
            )
        }
        ("dtype" | "shape", Some(a), Some(b)) => {
            let mut told = Vec::new();
            if a.dtype != b.dtype {
                told.push(format!("dtype: {} in A, {} in B", a.dtype, b.dtype));
            }
            if a.shape != b.shape {
                told.push(format!("shape: {:?} in A, {:?} in B", a.shape, b.shape));
            }
            told.join("; ")
        }
        ("only_in_a", Some(a), _) => format!("only in A: {} {:?}", a.dtype, a.shape),
        ("only_in_b", _, Some(b)) => format!("only in B: {} {:?}", b.dtype, b.shape),
        (state, ..) => state.replace('_', " "),
    }
}

/// Layers that are told.
const LAYERS: usize = 200;

/// For each layer how many of its tensors are unequal, where there are several layers.
fn by_layer(out: &mut Text, outcome: &Outcome, unequal: usize) {
    let layers = layers(outcome);
    let bad: Vec<_> = layers
        .iter()
        .filter(|(_, layer)| layer.unequal > 0)
        .collect();
    if unequal < 2 || layers.len() < 2 || bad.is_empty() {
        return;
    }
    for (name, layer) in bad.iter().take(LAYERS) {
        let by = if layer.most > 0.0 {
            format!(", by {:.3e} at most", layer.most)
        } else {
            String::new()
        };
        let (all, unequal) = (layer.tensors, layer.unequal);
        out.line(format_args!(
            "layer {name}: {unequal} of {all} not equal{by}"
        ));
    }
    if bad.len() > LAYERS {
        out.line(format_args!(
            "… {}",
            counted((bad.len() - LAYERS) as u64, "more layer")
        ));
    }
}
