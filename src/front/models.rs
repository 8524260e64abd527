//! Hugging Face models, in and out.

use crate::destination::Writing;
use crate::fault::Result;
use crate::front::task::Task;
use crate::job::{Goal, ViewMaker, Write};
use crate::model::{Export, Given, Import, companions, described, quantised_block};
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::Reading;
use crate::source::derived::Derived;
use crate::store::Format;
use std::path::PathBuf;

fn write(files: Naming, view: ViewMaker, destination: PathBuf) -> Write {
    let files = Files::Full {
        naming: files,
        file_bytes_max: FULL_FILE_BYTES_MAX,
    };
    let leftovers = Leftovers::View(Unmatched::Fail);
    Write {
        format: Some(Format::SAFETENSORS),
        view: Some(view),
        ..Write::new(leftovers, files, Writing::into(destination))
    }
}

/// The Hugging Face model in `model` as full MindSpore weights, with the names and the fusing of its
/// family's usual training job; to cut them, [`split`](crate::split) what comes out.
///
/// # Errors
/// [`crate::fault::Kind::Unsupported`] for a model of an unknown family, or if its config.json can't
/// be read.
pub fn import(model: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Result<Task> {
    let model = model.into();
    let import = Import::usual(&model)?;
    let block = quantised_block(&import.numbers)?;
    let view = ViewMaker::new(move |inventory, _| import.view(inventory));
    let reading = Reading {
        derived: Derived {
            block,
            ..Derived::default()
        },
        ..Reading::checkpoint(model, None, None)
    };
    let write = write(Naming::Hf, view, destination.into());
    Ok(Task::new("import", reading, Goal::Write(Box::new(write))))
}

/// MindSpore weights as a Hugging Face model; `model` has its config.json and tokenizer files, which
/// are copied.
///
/// # Errors
/// As [`import`].
pub fn export(
    source: impl Into<PathBuf>,
    model: impl Into<PathBuf>,
    destination: impl Into<PathBuf>,
) -> Result<Task> {
    let model = model.into();
    let (family, numbers) = described(&model, "auto", None)?;
    let companions = companions(&model)?;
    let extras = companions.files.clone();
    let export = Export {
        quantise: None,
        companions,
        family,
        numbers,
        given: Given::default(),
        dtype: None,
        allow_missing: false,
        allow_extra: false,
        vocabulary_rows: None,
        untied: false,
        as_one: false,
    };
    let view = ViewMaker::new(move |inventory, metadata| export.view(inventory, metadata));
    let write = Write {
        extras,
        ..write(Naming::HfOnly, view, destination.into())
    };
    let reading = Reading::checkpoint(source.into(), None, None);
    Ok(Task::new("export", reading, Goal::Write(Box::new(write))))
}
