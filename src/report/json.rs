//! One JSON object as the result.

use crate::course;
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Outcome;
use serde::Serialize;
use serde_json::{Value, json};

/// A job's outcome. A diff's `tensors` are the list of them.
pub(super) fn outcome(outcome: &Outcome) -> Result<String> {
    let mut value = serde_json::to_value(outcome).map_err(|error| internal(&error))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("run".into(), course::run().into());
    }
    if outcome.equal.is_some()
        && let Some(object) = value.as_object_mut()
    {
        let list = object
            .remove("tensor_differences")
            .unwrap_or_else(|| json!([]));
        object.insert("tensors".into(), list);
    }
    Ok(value.to_string())
}

/// Other results: their fields, with the command's name.
pub(super) fn data(command: &str, data: &impl Serialize) -> Result<String> {
    let mut object = json!({ "schema": 1, "command": command, "run": course::run(), "ok": true });
    let value = serde_json::to_value(data).map_err(|error| internal(&error))?;
    match (object.as_object_mut(), value) {
        (Some(object), Value::Object(fields)) => object.extend(fields),
        (Some(object), other) => {
            object.insert("data".into(), other);
        }
        (None, _) => {}
    }
    Ok(object.to_string())
}

/// An error.
pub(super) fn fault(command: &str, fault: &Fault) -> Result<String> {
    let error = serde_json::to_value(fault).map_err(|error| internal(&error))?;
    let object = json!({
        "schema": 1, "command": command, "run": course::run(), "ok": false, "error": error,
    });
    Ok(object.to_string())
}

fn internal(error: &serde_json::Error) -> Fault {
    Fault::new(Kind::Internal, format!("can't write JSON: {error}"))
}
