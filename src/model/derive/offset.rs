//! `offset`: layers that a stage has more, or fewer, than its even share.

use crate::fault::{Fault, Kind, Result};
use serde_json::Value;
use std::fmt;

/// The key `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    /// The same everywhere.
    All(i64),
    /// One a stage.
    Stages(Vec<i64>),
    /// One a stage, for each chunk.
    Chunks(Vec<Vec<i64>>),
}

impl Offset {
    /// Reads the key's value; none: 0.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything but a whole number, a list of them, or a list of lists.
    pub(super) fn parse(value: Option<&Value>) -> Result<Offset> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(Offset::All(0));
        };
        if let Some(number) = value.as_i64() {
            return Ok(Offset::All(number));
        }
        let row = |value: &Value| -> Option<Vec<i64>> {
            value.as_array()?.iter().map(Value::as_i64).collect()
        };
        if let Some(row) = row(value).filter(|row| !row.is_empty()) {
            return Ok(Offset::Stages(row));
        }
        let rows: Option<Vec<Vec<i64>>> = value
            .as_array()
            .and_then(|rows| rows.iter().map(row).collect());
        rows.filter(|rows| !rows.is_empty())
            .map(Offset::Chunks)
            .ok_or_else(|| {
                let fault = Fault::new(Kind::Config, format!("offset is {value}"));
                fault.hint("a whole number, one a stage ([1, 0]), or one a stage for each chunk")
            })
    }

    /// Whether every stage has its even share.
    pub(super) fn is_none(&self) -> bool {
        *self == Offset::All(0)
    }

    /// Reads `1:0`, one a stage, `1:0/0:0`, for each chunk, a number, or the same as a list in brackets.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn typed(text: &str) -> std::result::Result<Offset, String> {
        let wrong = || format!("offset is '{text}', not a number a stage as 1:0");
        if text.starts_with('[') {
            let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
            return Offset::parse(Some(&value)).map_err(|_| wrong());
        }
        let row = |row: &str| -> Option<Vec<i64>> {
            row.split(':')
                .map(|number| number.trim().parse().ok())
                .collect()
        };
        let rows: Option<Vec<Vec<i64>>> = text.split('/').map(row).collect();
        match rows.as_deref() {
            None => Err(wrong()),
            Some([one]) if one.len() == 1 => Ok(Offset::All(one[0])),
            Some([one]) => Ok(Offset::Stages(one.clone())),
            Some(rows) => Ok(Offset::Chunks(rows.to_vec())),
        }
    }

    /// The sum as it is written, which the trainer checks.
    pub(super) fn sum(&self) -> i64 {
        match self {
            Offset::All(number) => *number,
            Offset::Stages(row) => row.iter().fold(0, |sum, n| sum.saturating_add(*n)),
            Offset::Chunks(rows) => {
                let all = rows.iter().flatten();
                all.fold(0, |sum, n| sum.saturating_add(*n))
            }
        }
    }

    /// One number a stage for each of `chunks`.
    pub(super) fn spread(&self, chunks: usize, stages: usize) -> Result<Vec<Vec<i64>>> {
        let wrong = |what: String, fits: String| {
            Err(Fault::new(Kind::Config, format!("offset {what}")).hint(fits))
        };
        let row_fits = |row: &Vec<i64>| row.len() == stages;
        match self {
            Offset::All(number) => Ok(vec![vec![*number; stages]; chunks]),
            Offset::Stages(row) if row_fits(row) => Ok(vec![row.clone(); chunks]),
            Offset::Chunks(rows) if rows.len() == chunks && rows.iter().all(row_fits) => {
                Ok(rows.clone())
            }
            Offset::Stages(row) => wrong(
                format!(
                    "{row:?} has {} numbers, pipeline_stage is {stages}",
                    row.len()
                ),
                format!("give {stages} numbers"),
            ),
            Offset::Chunks(rows) => wrong(
                format!("{rows:?} doesn't fit pipeline_stage {stages} and {chunks} chunks a stage"),
                format!(
                    "give {chunks} lists (pp_interleave_num with pipeline_interleave) of {stages} numbers"
                ),
            ),
        }
    }
}

/// As it is typed in a layout.
impl fmt::Display for Offset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |row: &[i64]| -> String {
            let numbers: Vec<String> = row.iter().map(i64::to_string).collect();
            numbers.join(":")
        };
        match self {
            Offset::All(number) => number.fmt(out),
            Offset::Stages(stages) => out.write_str(&row(stages)),
            Offset::Chunks(rows) => {
                let rows: Vec<String> = rows.iter().map(|stages| row(stages)).collect();
                out.write_str(&rows.join("/"))
            }
        }
    }
}
