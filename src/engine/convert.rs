//! convert: every file as it is, in the other format.
//!
//! A job whose source and destination have a rank for each file: all tensors are private.

use crate::catalog::{Catalog, ShardFile};
use crate::engine::discover::{Source, discover_files};
use crate::engine::fill::Readers;
use crate::engine::job::{Options, threads};
use crate::engine::mover::{Mover, Observer};
use crate::engine::outcome::{Outcome, Seconds};
use crate::engine::output::Output;
use crate::engine::place::Destination;
use crate::engine::resume::fingerprint;
use crate::engine::rounds::Exchange;
use crate::engine::sink::FileSink;
use crate::engine::tally;
use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Result};
use crate::layout::Layout;
use crate::plan::TensorPlan;
use crate::plan::arrange::Kept;
use crate::plan::build::{Made, plan_tensor};
use crate::plan::inventory::whole_tensor;
use crate::plan::work::{Skip, Work};
use crate::store::io::ReadFile;
use crate::store::{Format, ckpt};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What to convert.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// A file, a tree of rank directories, or a directory of full weights.
    pub source: PathBuf,
    /// Directory to write.
    pub destination: PathBuf,
    /// Format to write.
    pub format: Format,
    /// Name read → name written.
    pub name_map: BTreeMap<String, String>,
    /// Convert only files whose names contain this.
    pub file_name_contains: Option<String>,
    /// Check the CRC of ckpt sources that carry one.
    pub check_crc: bool,
    /// Append a CRC to ckpt files.
    pub crc: bool,
    /// How it is run.
    pub options: Options,
}

/// Converts. Collective.
///
/// # Errors
/// The same fault on every process; then nothing is visible at the destination.
pub fn convert(
    world: &World,
    conversion: &Conversion,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut seconds = Seconds::default();
    let options = &conversion.options;
    let topology = Topology::discover(world)?;
    let contains = conversion.file_name_contains.as_deref();
    let from = if conversion.format == Format::Ckpt {
        Format::Safetensors
    } else {
        Format::Ckpt
    };
    let source = discover_files(
        world,
        &topology,
        &conversion.source,
        from,
        contains,
        options.exchange,
    )?;
    if conversion.check_crc {
        agree(world, check_crc(&source))?;
    }
    seconds.discover = start.elapsed().as_secs_f64();
    let planning = Instant::now();
    let ranks = source.reach.source_ranks;
    // A file stays on the node that it is on.
    let home = |rank| source.reach.owner(rank).unwrap_or_default();
    let to = &conversion.destination;
    let destination = Destination::find(world, &topology, to, ranks, home, options)?;
    let designed = design(conversion, &source, &destination.site.ranks);
    let (catalog, plans) = agree(world, designed)?;
    let readers = Readers::new(&source.base, &source.catalog, options.io);
    let sink = FileSink::new(destination.staging.partial(), &catalog);
    let skip = Skip::Nothing;
    let mut mover = Mover {
        world,
        work: Work {
            plans: &plans,
            source: &source.catalog,
            destination: &catalog,
            site: &destination.site,
            skip: &skip,
            reach: &source.reach,
            sharing: None,
        },
        readers: &readers,
        sink: &sink,
        ledger: None,
        threads: threads(options, &topology, world),
        memory_bytes: options.memory_bytes,
        total_bytes: 0,
    };
    let survey = agree(world, mover.survey())?;
    mover.total_bytes = tally::sum(world, survey.written_bytes)?;
    let exchange = Exchange::choose(world, &survey, options.memory_bytes)?;
    seconds.plan = planning.elapsed().as_secs_f64();
    let rest = format!(
        "convert {:?} {:?} {:?} {}",
        conversion.format, conversion.name_map, conversion.file_name_contains, conversion.crc
    );
    let output = Output {
        command: "convert",
        job: fingerprint(world, &source, &rest)?,
        layouts: [("source", None), ("destination", None)],
        destination: &destination,
        catalog: &catalog,
        extras: &[],
        links: &[],
        kept: &Kept::default(),
        options,
        trailers: conversion.crc,
        by_file: true,
    };
    let moved = output.write(&mover, exchange, observer, &mut seconds)?;
    seconds.total = start.elapsed().as_secs_f64();
    let mut outcome = Outcome {
        ok: true,
        tensors: plans.len() as u64,
        files: catalog.paths(),
        source_files: source.catalog.paths(),
        ..tally::outcome(world, &topology, "convert")
    };
    outcome.bytes.reused = tally::sum(world, survey.written_bytes - moved.written_bytes)?;
    tally::total(world, &mut outcome, &survey, &moved, &readers, &seconds)?;
    Ok(outcome)
}

/// Lays out a file for each source file of `ranks`: same tensors, other format.
fn design(
    conversion: &Conversion,
    source: &Source,
    ranks: &[u32],
) -> Result<(Catalog, Vec<TensorPlan>)> {
    let mut catalog = Catalog::default();
    let mut plans = Vec::new();
    for (rank, files) in &source.catalog.ranks {
        let [file] = &files[..] else { continue };
        let named = |fault: Fault| fault.file(source.base.join(&file.path).display().to_string());
        let mut listing = Vec::new();
        for entry in &file.schema.entries {
            let name = conversion.name_map.get(&*entry.name);
            let name = name.map_or_else(|| entry.name.clone(), |name| Arc::from(name.as_str()));
            let tensor = Arc::new(whole_tensor(entry, *rank).map_err(named)?);
            let layout = Arc::new(Layout::whole(entry.shape.0.len()));
            plans.push(plan_tensor(&name, &Made::of(&tensor)?, *rank, layout).map_err(named)?);
            listing.push((name, entry.dtype, entry.shape.clone()));
        }
        if ranks.binary_search(rank).is_err() {
            continue;
        }
        let schema = conversion
            .format
            .design(&listing, &metadata(conversion, file));
        let schema = Arc::new(schema.map_err(named)?);
        let stem = file
            .path
            .rsplit_once('.')
            .map_or(file.path.as_str(), |(stem, _)| stem);
        let path = format!("{stem}.{}", conversion.format.extension());
        catalog
            .ranks
            .insert(*rank, vec![ShardFile { path, schema }]);
    }
    Ok((catalog, plans))
}

/// What the other format can carry of a file's metadata: marks of packed types and texts.
fn metadata(conversion: &Conversion, file: &ShardFile) -> BTreeMap<String, String> {
    let kept = file
        .schema
        .metadata
        .iter()
        .filter(|(key, value)| *value == "Int4" || key.starts_with(ckpt::TEXT_PREFIX));
    let renamed = kept.map(|(key, value)| {
        (
            conversion.name_map.get(key).unwrap_or(key).clone(),
            value.clone(),
        )
    });
    let mut metadata: BTreeMap<String, String> = renamed.collect();
    if conversion.format == Format::Safetensors {
        metadata.insert("format".into(), "ms".into());
    }
    metadata
}

/// Checks the files that fall to this process. Local.
fn check_crc(source: &Source) -> Result<()> {
    for (rank, file) in source
        .catalog
        .ranks
        .iter()
        .flat_map(|(r, f)| f.iter().map(move |f| (r, f)))
    {
        if source.reach.owner(*rank) == Some(source.reach.process)
            && Format::of(&file.path) == Some(Format::Ckpt)
        {
            let file = ReadFile::open(&source.base.join(&file.path))?;
            if !ckpt::check_crc(&file)? {
                tracing::warn!("{}: carries no CRC to check", file.path().display());
            }
        }
    }
    Ok(())
}
