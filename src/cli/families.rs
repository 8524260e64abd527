//! `shardloom families`: the families of models that are known, and tables of one's own.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::family::spelled;
use crate::cli::flags::name_map::family_table;
use crate::fault::plain::{Text, counted};
use crate::fault::{Fault, Kind, Result, nearest};
use crate::job::inspect::full_tensors;
use crate::model::{Choices, Family, Mapping, Scheme, described};
use crate::report::Report;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  shardloom families
  shardloom families --print llama
  shardloom families --check mine.json --model Mine-7B";

/// Names told of many.
const TOLD: usize = 8;

/// List the families of models, print one's table, or check a table of your own.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Families {
    /// Print this family's table, to begin one of your own with.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["check", "model"])]
    print: Option<String>,
    /// Say what a table leaves out or names wrongly, against the model's tensors.
    #[arg(long, value_name = "FILE", requires = "model")]
    check: Option<PathBuf>,
    /// The model's directory: its config.json and its weights.
    #[arg(long, value_name = "DIR", requires = "check")]
    model: Option<PathBuf>,
}

impl Command for Families {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(move |report| {
            match (&self.print, &self.check, &self.model) {
                (Some(name), ..) => print(name, report),
                (_, Some(table), Some(model)) => check(table, model, report),
                _ => list(report),
            }
        }))
    }
}

fn list(report: &Report) -> Result<bool> {
    let families = Family::built_in()?;
    let mut text = Text::new(format_args!("{} families of models", families.len()));
    let mut all: Vec<Value> = Vec::new();
    let lengths = families.iter().map(|family| family.family.len());
    let width = lengths.max().unwrap_or_default();
    for family in &families {
        let schemes = schemes(family).map(spelled);
        let derives = family.training.as_ref();
        let derives = derives.map(|training| spelled(training.names));
        text.line(format_args!(
            "  {:<width$} model_type {}; names {} (usual: {}); layouts derived for {} names",
            family.family,
            family.model_types.join(", "),
            schemes.clone().collect::<Vec<_>>().join(", "),
            spelled(family.usual_names),
            derives.unwrap_or("no")
        ));
        all.push(json!({
            "family": family.family, "also": family.also, "about": family.about,
            "model_types": family.model_types, "names": schemes.collect::<Vec<_>>(),
            "usual_names": spelled(family.usual_names), "derives": derives,
            "needs": family.numbers.values().collect::<Vec<_>>(),
        }));
    }
    report.data(&json!({ "families": all }), &text)?;
    Ok(true)
}

/// The names that some block of a family has.
fn schemes(family: &Family) -> impl Iterator<Item = Scheme> + Clone {
    let legacy = family.blocks.iter().any(|block| block.legacy.is_some());
    let mcore = family.blocks.iter().any(|block| block.mcore.is_some());
    let all = [(Scheme::Legacy, legacy), (Scheme::Mcore, mcore)];
    all.into_iter()
        .filter(|(_, has)| *has)
        .map(|(scheme, _)| scheme)
}

fn print(name: &str, report: &Report) -> Result<bool> {
    let Some(table) = Family::text(name)? else {
        let families = Family::built_in()?;
        let known: Vec<&str> = families
            .iter()
            .map(|family| family.family.as_str())
            .collect();
        let near = nearest(name, known.iter().copied());
        let near = near
            .first()
            .map_or(String::new(), |near| format!("did you mean {near}? "));
        let fault = Fault::new(Kind::Usage, format!("there is no family '{name}'"));
        return Err(fault.hint(format!("{near}known: {}", known.join(", "))));
    };
    let parsed: Value = serde_json::from_str(table)
        .map_err(|error| Fault::new(Kind::Internal, format!("a built-in table: {error}")))?;
    report.data(&json!({ "table": parsed }), &Text::own(table))?;
    Ok(true)
}

/// What a table and a model's tensors don't agree on.
#[derive(Default)]
struct Found {
    /// The table's tensors that the model lacks.
    missing: Vec<String>,
    /// The model's that the table doesn't know.
    unknown: Vec<String>,
    /// Those of another shape: name, the table's, the model's.
    shapes: Vec<(String, Vec<u64>, Vec<u64>)>,
}

fn check(path: &Path, model: &Path, report: &Report) -> Result<bool> {
    let family = family_table(path)?;
    let names = family.usual_names;
    let (family, numbers) = described(model, "auto", Some(family))?;
    let held = full_tensors(model)?.into_iter();
    let tensors: BTreeMap<String, Vec<u64>> = held
        .map(|(name, _, shape)| (name.to_string(), shape.0))
        .collect();
    let present = |hf: &str, _: &str| tensors.keys().any(|name| name.starts_with(hf));
    let mapping = Mapping::new(&family, &numbers, &Choices::usual(names), &present)
        .map_err(|fault| fault.file(path.display().to_string()))?;
    let mut found = Found::default();
    let mut known: Vec<&str> = mapping.only_hf.iter().map(|(name, _)| &**name).collect();
    for tensor in mapping.links.iter().flat_map(|link| &link.hf) {
        known.push(&tensor.name);
        match tensors.get(&*tensor.name) {
            None => found.missing.push(tensor.name.to_string()),
            Some(shape) if *shape != tensor.shape.0 => {
                let entry = (
                    tensor.name.to_string(),
                    tensor.shape.0.clone(),
                    shape.clone(),
                );
                found.shapes.push(entry);
            }
            Some(_) => {}
        }
    }
    known.sort_unstable();
    let others = tensors.keys();
    let unknown = others.filter(|name| known.binary_search(&name.as_str()).is_err());
    found.unknown.extend(unknown.cloned());
    let fits = found.missing.is_empty() && found.unknown.is_empty() && found.shapes.is_empty();
    let shapes = found
        .shapes
        .iter()
        .map(|(name, table, model)| json!({ "name": name, "table": table, "model": model }));
    let data = json!({
        "fits": fits, "tensors": tensors.len(), "missing": found.missing,
        "unknown": found.unknown, "shapes": shapes.collect::<Vec<_>>(),
    });
    report.data(&data, &found.text(path, tensors.len()))?;
    Ok(fits)
}

impl Found {
    /// For people.
    fn text(&self, path: &Path, tensors: usize) -> Text {
        let mut text = Text::new(format_args!(
            "{}: {} of the model; {} that it lacks, {} that the table doesn't know, {} of another shape",
            path.display(),
            counted(tensors as u64, "tensor"),
            self.missing.len(),
            self.unknown.len(),
            self.shapes.len()
        ));
        for (what, names) in [
            ("the model lacks", &self.missing),
            ("unknown", &self.unknown),
        ] {
            for name in names.iter().take(TOLD) {
                text.line(format_args!("  {what}: {name}"));
            }
            if let Some(more) = names.len().checked_sub(TOLD).filter(|more| *more > 0) {
                text.line(format_args!("  {what}: {more} more"));
            }
        }
        for (name, table, model) in self.shapes.iter().take(TOLD) {
            text.line(format_args!(
                "  shape: {name} is {model:?}, the table says {table:?}"
            ));
        }
        text
    }
}
