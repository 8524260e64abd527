//! A strategy file: its name, its bytes and its form.

/// A strategy file's name and bytes.
#[derive(Clone, Copy, Debug)]
pub struct StrategyFile<'a> {
    /// Path as the user gave it. A name that ends in `.json` is read as JSON, any other as
    /// protobuf.
    pub name: &'a str,
    /// What the file holds.
    pub bytes: &'a [u8],
}

/// The two forms of a strategy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// MindSpore's protobuf message, usually named `.ckpt`.
    Protobuf,
    /// A JSON object, always named `.json`.
    Json,
}

impl Form {
    /// The form that MindSpore reads a file of this name in.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name.ends_with(".json") {
            Form::Json
        } else {
            Form::Protobuf
        }
    }
}
