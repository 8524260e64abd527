//! The very all-to-all of a reshard, with made-up bytes and without files: the rounds, partners and sizes
//! of its plan.

use crate::course;
use crate::exchange::{Operation, Topology, World, agree, all_reduce};
use crate::fault::Result;
use crate::measure::bench::{Measured, Repeat, Row, Traveled, all_wrong};
use crate::measure::collectives::{Question as Messages, collectives};
use crate::measure::operation::By;
use crate::measure::replay::Replay;
use crate::measure::sampling::{rate, sample};
use crate::plan::machine::Machine;
use crate::plan::reach::ExchangeMode;
use crate::plan::simulate::{Cluster, Model, Shapes, Storage};
use crate::plan::work::Skip;
use crate::source::strategy_files::read_alone;
use crate::strategy::StrategyInput;
use crate::transport::{Asked, Exchange, traffic};
use std::collections::BTreeMap;

/// Messages of this size tell what a link carries.
const LINK_BYTES: u64 = 4 << 20;

/// The reshard that is meant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reshard {
    /// Strategy of the source; none means full weights.
    pub source: Option<StrategyInput>,
    /// Strategy of the destination; none means full weights.
    pub destination: Option<StrategyInput>,
    /// Processes that are taken for a node's; none means those that share one.
    pub ranks_per_node: Option<u32>,
    /// How slices travel.
    pub mode: ExchangeMode,
    /// Buffers of a process.
    pub memory_bytes: u64,
}

impl Reshard {
    /// From full weights to full weights.
    #[must_use]
    pub fn new(mode: ExchangeMode, memory_bytes: u64) -> Reshard {
        Reshard {
            source: None,
            destination: None,
            ranks_per_node: None,
            mode,
            memory_bytes,
        }
    }
}

/// Sends what a reshard of tensors of these `shapes` would send. Each process is where source rank r of N
/// lies at process floor(r * P / N). Collective.
///
/// # Errors
/// Those of a job's plan, [`crate::fault::Kind::Memory`], [`crate::fault::Kind::Mpi`].
pub fn exchange(
    world: &World,
    repeat: Repeat,
    reshard: &Reshard,
    shapes: &Shapes,
) -> Result<Measured> {
    course::phase("measuring an exchange");
    let topology = Topology::discover(world)?;
    let (mut traveled, rounds, exchange, note) = plan(world, &topology, reshard, shapes)?;
    let mut replay = Replay::new(world, exchange.traffic, rounds)?;
    let (sent, busiest) = replay.bytes()?;
    (traveled.sent, traveled.busiest_process) = (sent, busiest);
    let (mut rows, mut machine, mut unmeasured) = (Vec::new(), BTreeMap::new(), Vec::new());
    if sent > 0 {
        for by in [By::Shardloom, By::Library] {
            replay.by = by;
            replay.look()?;
            let timing = sample(world, repeat, false, &mut replay)?;
            let mut row = Row::new("exchange", sent, timing, sent, 1.0);
            row.bus_gbps = Some(rate(busiest, timing.seconds.median));
            row.by = by.name();
            row.processes = world.size();
            (row.wrong_bytes, row.wrong) = all_wrong(world, replay.wrong.as_ref())?;
            rows.push(row);
        }
        let linked = link(world, repeat)?;
        let rates = linked.rows.iter().map(|row| row.algorithm_gbps);
        let link = rates.fold(0.0, f64::max);
        if link > 0.0 {
            traveled.seconds_lower_bound = seconds_at(busiest, link);
        }
        (machine, unmeasured) = (linked.machine, linked.unmeasured);
    }
    let mut measured = Measured::new("exchange", world, &topology, rows, None);
    measured.machine.extend(machine);
    measured.unmeasured.extend(unmeasured);
    measured.verdict.extend(note);
    measured.bytes = Some(traveled);
    Ok(measured)
}

/// Seconds that `bytes` take at `gbps`.
#[allow(clippy::cast_precision_loss, reason = "a number of bytes")]
fn seconds_at(bytes: u64, gbps: f64) -> f64 {
    bytes as f64 / 1e9 / gbps
}

/// What pairs carry while all do. Collective.
fn link(world: &World, repeat: Repeat) -> Result<Measured> {
    let mut question = Messages::new(LINK_BYTES, repeat);
    question.bytes_min = LINK_BYTES;
    question.window = 4;
    question.operations = vec!["many_pairs".to_owned()];
    collectives(world, &question, &mut |_, _| {})
}

type Planned = (Traveled, Vec<Vec<Asked>>, Exchange, Option<String>);

/// This process's rounds. Collective.
fn plan(world: &World, topology: &Topology, reshard: &Reshard, shapes: &Shapes) -> Result<Planned> {
    let widest = topology.nodes.iter().map(Vec::len).max().unwrap_or(1);
    let widest = u32::try_from(widest).unwrap_or(u32::MAX);
    let mut cluster = Cluster {
        processes: world.size(),
        per_node: reshard.ranks_per_node.unwrap_or(widest),
        storage: Storage::Local,
        mode: reshard.mode,
    };
    let mut note = None;
    if cluster.per_node >= world.size() && cluster.mode == ExchangeMode::Auto {
        cluster.mode = ExchangeMode::Collective;
        note = Some(
            "on one node a job would read everything directly; this is what it would send if each \
             process saw its own files alone (--ranks-per-node takes fewer processes for a node)"
                .to_owned(),
        );
    }
    let model = read(reshard, shapes);
    let model = agree(world, model)?;
    let machine = Machine::default();
    let me = world.process();
    let ranks = model.destination_ranks();
    let homes = cluster.homes(ranks);
    let site = cluster.site(me, ranks);
    let made = cluster.reach(&model.source).and_then(|mut reach| {
        reach.process = me;
        let arranged = model.arrange(&site.ranks)?;
        let survey = model.survey(&arranged, None, &site, &reach, (&homes, &machine))?;
        Ok((reach, arranged, survey))
    });
    let (reach, arranged, survey) = agree(world, made)?;
    let mut sums = [survey.received_bytes_lower_bound];
    all_reduce(world, &mut sums, Operation::Sum)?;
    let chosen = Exchange::choose(world, &survey, reshard.memory_bytes)?;
    let skip = Skip::Nothing;
    let rounds = match chosen {
        Some(exchange) => {
            let work = model.work(&arranged, &site, &reach, (&homes, &machine, &skip));
            traffic(&work, exchange)
        }
        None => Ok(Vec::new()),
    };
    let rounds = agree(world, rounds)?;
    let mut most = [rounds.len() as u64, survey.senders.len() as u64];
    all_reduce(world, &mut most, Operation::Max)?;
    let traveled = Traveled {
        sent_lower_bound: sums[0],
        rounds: most[0],
        partners_max: most[1],
        nodes: u32::try_from(reach.nodes.len()).unwrap_or(u32::MAX),
        ..Traveled::default()
    };
    let exchange = chosen.unwrap_or(Exchange::of(world.size(), 0, 0, reshard.memory_bytes));
    Ok((traveled, rounds, exchange, note))
}

fn read(reshard: &Reshard, shapes: &Shapes) -> Result<Model> {
    let source = reshard.source.as_ref().map(read_alone).transpose()?;
    let destination = reshard.destination.as_ref().map(read_alone).transpose()?;
    Model::new(shapes, source.as_ref(), destination)
}
