//! `shardloom formats`: what is read, what is written, and what is known by sight.

use crate::cli::command::{Command, Prepared};
use crate::fault::Result;
use crate::fault::plain::Text;
use crate::store::formats::known_by_sight;
use crate::store::{Directory, Format};
use clap::Args;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  shardloom formats
  shardloom formats --json";

/// List the formats that are read, written and recognised.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Formats {}

impl Command for Formats {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(|report| {
            let mut text = Text::new("read and written:");
            let mut read: Vec<Value> = Vec::new();
            for format in Format::all().filter(|format| format.tells_itself()) {
                let written = Format::written().any(|other| other.name() == format.name());
                let alone = if written { "" } else { " (read only)" };
                text.line(format_args!(
                    "  {:<12} {}{alone}",
                    format.name(),
                    format.about()
                ));
                read.push(json!({
                    "name": format.name(), "about": format.about(),
                    "extension": format.extension(), "written": written,
                }));
            }
            for format in Directory::all() {
                let written = format.is_written();
                let alone = if written { "" } else { " (read only)" };
                text.line(format_args!(
                    "  {:<12} {}{alone}",
                    format.name(),
                    format.about()
                ));
                read.push(json!({
                    "name": format.name(), "about": format.about(),
                    "extension": Value::Null, "written": written,
                }));
            }
            text.line("recognised, and refused with what to do:");
            let mut recognised: Vec<Value> = Vec::new();
            for (name, hint) in known_by_sight() {
                text.line(format_args!("  {name}: {hint}"));
                recognised.push(json!({ "name": name, "hint": hint }));
            }
            let data = json!({ "formats": read, "recognised": recognised });
            report.data(&data, &text).map(|()| true)
        }))
    }
}
