//! Plans and costs for thousands of ranks, from strategies and shapes alone. Local: no MPI, no data.

use crate::course::pace;
use crate::fault::{Fault, Kind, Result};
use crate::job::account::Account;
use crate::measure::chosen::{sample, standing_for};
use crate::measure::shapes::SHAPES_BYTES_MAX;
use crate::plan::arrange::Arranged;
use crate::plan::forecast::{Nodes, Shares, reads};
use crate::plan::machine::Machine;
use crate::plan::ratio::ratio;
use crate::plan::reach::{ExchangeMode, Reach};
use crate::plan::simulate::{Cluster, Model, Shapes, Storage, keep_some};
use crate::plan::survey::Survey;
use crate::plan::turns::Home;
use crate::source::strategy_files::read_alone;
use crate::store::io::{ReadFile, peak_memory_bytes};
use crate::strategy::{Strategy, StrategyInput};
use crate::transport::Exchange;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use crate::measure::shapes::read_shapes;
pub use crate::measure::simulated::{Bytes, Load, Plan, ProcessPlan, Seconds, Simulated};

/// Most processes that are listed.
const LISTED_MAX: usize = 64;

/// What is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// Strategy of the source; none means full weights.
    pub source_strategy: Option<StrategyInput>,
    /// Strategy of the destination; none means full weights.
    pub destination_strategy: Option<StrategyInput>,
    /// Full shapes: JSON, or weights.
    pub shapes: PathBuf,
    /// That process's plan alone.
    pub process: Option<u32>,
    /// Number of processes; none means one a destination rank.
    pub processes: Option<u32>,
    /// Processes of a node; none means what the machine says.
    pub ranks_per_node: Option<u32>,
    /// Where files are.
    pub storage: Storage,
    /// How slices travel.
    pub exchange: ExchangeMode,
    /// Buffers of a process.
    pub memory_bytes: u64,
    /// What a node can do.
    pub machine: Machine,
    /// Plan for about so many nodes, some of each stage, which stand for the others, and there for some of the
    /// tensors that are alike; none: for all of them.
    pub nodes_max: Option<usize>,
}

impl Question {
    /// What moving full weights of these shapes to full weights would take, by one process a destination
    /// rank, with files on each node's own disk.
    #[must_use]
    pub fn new(shapes: impl Into<PathBuf>) -> Question {
        Question {
            source_strategy: None,
            destination_strategy: None,
            shapes: shapes.into(),
            process: None,
            processes: None,
            ranks_per_node: None,
            storage: Storage::Local,
            exchange: ExchangeMode::Auto,
            memory_bytes: 1 << 30,
            machine: Machine::default(),
            nodes_max: None,
        }
    }
}

/// Reads a machine's description; none is the default.
///
/// # Errors
/// [`Kind::Corrupt`] for what is no such description or has a rate of 0.
pub fn read_machine(path: Option<&Path>) -> Result<Machine> {
    let Some(path) = path else {
        return Ok(Machine::default());
    };
    // What begins as JSON is no file's name.
    let given = path.to_string_lossy();
    let text = if given.trim_start().starts_with('{') {
        given.as_bytes().to_vec()
    } else {
        ReadFile::open(path)?.read_all(SHAPES_BYTES_MAX)?
    };
    Machine::parse(&text).map_err(|fault| fault.file(path.display().to_string()))
}

/// Plans for the processes asked for. Local.
///
/// # Errors
/// Those of a job's plan; [`Kind::Usage`] for a process that there isn't.
pub fn simulate(question: &Question) -> Result<Simulated> {
    let start = Instant::now();
    let shapes = read_shapes(&question.shapes)?;
    let source = question.source_strategy.as_ref();
    let source = source.map(read_alone).transpose()?;
    let destination = question.destination_strategy.as_ref();
    let destination = destination.map(read_alone).transpose()?;
    let discover = start.elapsed().as_secs_f64();
    let mut simulated = plan(question, &shapes, source.as_ref(), destination)?;
    simulated.seconds.discover = discover;
    simulated.seconds.total = start.elapsed().as_secs_f64();
    Ok(simulated)
}

/// [`simulate`] with what it reads at hand (the question's paths are not looked at). Local.
///
/// # Errors
/// As [`simulate`].
pub fn plan(
    question: &Question,
    shapes: &Shapes,
    source: Option<&Strategy>,
    destination: Option<Strategy>,
) -> Result<Simulated> {
    plan_telling(question, shapes, source, destination, &mut |_, _| {})
}

/// [`plan`], which tells how many nodes it has planned for, of how many. Local.
///
/// # Errors
/// As [`simulate`].
pub fn plan_telling(
    question: &Question,
    shapes: &Shapes,
    source: Option<&Strategy>,
    destination: Option<Strategy>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<Simulated> {
    let start = Instant::now();
    let model = Model::new(shapes, source, destination)?;
    let destination_ranks = model.destination_ranks();
    let per_node = question
        .ranks_per_node
        .unwrap_or(question.machine.ranks_per_node);
    let cluster = Cluster {
        processes: question.processes.unwrap_or(destination_ranks),
        per_node,
        storage: question.storage,
        mode: question.exchange,
    };
    let mut reach = cluster.reach(&model.source)?;
    let shared = start.elapsed().as_secs_f64();
    let mut run = Run {
        question,
        model: &model,
        cluster: &cluster,
        homes: cluster.homes(destination_ranks),
        plans: Vec::new(),
        weight: 1,
        weights: Vec::new(),
        total: Simulated {
            processes: cluster.processes,
            nodes: u32::try_from(reach.nodes.len()).unwrap_or(u32::MAX),
            source_ranks: model.inventory.ranks,
            destination_ranks,
            tensors: model.inventory.tensors.len() as u64,
            machine: Some(question.machine.clone()),
            ..Simulated::default()
        },
        shared,
        reads_for_others: None,
    };
    match question.process {
        Some(process) if process < cluster.processes => {
            let arranged = run.site(&[process], &mut reach)?;
            let sent = model.sent_bytes(&arranged, &cluster, &reach);
            let total = &mut run.total.bytes;
            // Elsewhere a process sends about what it receives.
            let even =
                cluster.mode == ExchangeMode::Collective || cluster.storage != Storage::Local;
            total.sent = if even { total.received } else { sent };
            run.reads_for_others = Some(if even { run.read_for(process) } else { sent });
        }
        Some(process) => {
            let message = format!("--process {process}: there are {}", cluster.processes);
            return Err(Fault::new(Kind::Usage, message));
        }
        None => run.all(&mut reach, tell)?,
    }
    Ok(run.finish(&reach))
}

struct Run<'a> {
    question: &'a Question,
    model: &'a Model,
    cluster: &'a Cluster,
    homes: Vec<Home>,
    plans: Vec<(ProcessPlan, Survey)>,
    /// How many nodes that which is planned for stands for.
    weight: u64,
    /// The same of each of the plans.
    weights: Vec<u64>,
    total: Simulated,
    /// Seconds of what all processes' plans begin with.
    shared: f64,
    /// Of one process alone: about what it reads for others.
    reads_for_others: Option<u64>,
}

impl Run<'_> {
    /// Plans for all nodes, or for those that stand for them.
    fn all(&mut self, reach: &mut Reach, tell: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let destination = self.model.destination.as_ref();
        let nodes = match self.question.nodes_max {
            Some(most) => standing_for(&reach.nodes, destination, most),
            None => sample(&reach.nodes, self.cluster.processes),
        };
        let count = nodes.len() as u64;
        for (number, (members, weight)) in (0..).zip(nodes) {
            tell(number, count);
            self.weight = weight;
            let arranged = self.site(&members, reach)?;
            if pace::is_on() && self.total.account.is_none() {
                self.total.account = Some(Box::new(Account::drawn(&arranged.plans)));
            }
        }
        tell(count, count);
        self.total.bytes.sent = self.total.bytes.received;
        Ok(())
    }

    /// Plans for some processes of one node.
    fn site(&mut self, processes: &[u32], reach: &mut Reach) -> Result<Arranged> {
        let start = Instant::now();
        let ranks = self.total.destination_ranks;
        let first = processes.first().copied().unwrap_or_default();
        let mut site = self.cluster.site(first, ranks);
        let mut arranged = self.model.arrange(&site.ranks)?;
        let some = self.question.nodes_max.is_some();
        let alike = some.then(|| keep_some(&mut arranged.plans));
        let shared = self.shared + start.elapsed().as_secs_f64();
        for process in processes {
            let start = Instant::now();
            site.index = process - (first - self.cluster.site(first, 0).index);
            reach.process = *process;
            let machine = &self.question.machine;
            let homes = &self.homes;
            let alike = alike.as_deref();
            let survey = self
                .model
                .survey(&arranged, alike, &site, reach, (homes, machine))?;
            let seconds = shared + start.elapsed().as_secs_f64();
            self.add(*process, survey, reach, seconds);
        }
        Ok(arranged)
    }

    fn add(&mut self, process: u32, survey: Survey, reach: &Reach, plan_seconds: f64) {
        let (bytes, weight) = (&mut self.total.bytes, self.weight);
        bytes.read += survey.read_bytes() * weight;
        bytes.read_unique += survey.needed_bytes * weight;
        bytes.received += survey.received_bytes * weight;
        bytes.sent_lower_bound += survey.received_bytes_lower_bound * weight;
        bytes.written += survey.written_bytes * weight;
        for (sender, sent) in &survey.senders {
            let (from, to) = (reach.node_of[*sender as usize], reach.node());
            *self.total.between.entry((from, to)).or_insert(0) += sent;
            if from == to {
                bytes.received_same_node += sent * weight;
            } else {
                bytes.received_other_nodes += sent * weight;
            }
        }
        self.total.plan.transfers += survey.transfers * weight;
        self.total.seconds.plan = self.total.seconds.plan.max(plan_seconds);
        let plan = ProcessPlan {
            process,
            read: 0,
            received: survey.received_bytes,
            written: survey.written_bytes,
            partners: survey.senders.len() as u64,
            transfers: survey.transfers,
            rounds: 0,
            plan_seconds,
        };
        self.plans.push((plan, survey));
        // Of a source in one place all is sent from there; of others each node has its turn.
        let alone = self.total.source_ranks == 1;
        self.weights.push(if alone { weight } else { 1 });
    }

    /// What other processes read for `process`, which is planned for.
    fn read_for(&self, process: u32) -> u64 {
        let readers = self.plans.iter().flat_map(|(_, survey)| &survey.readers);
        let others = readers.filter(|(reader, _)| **reader != process);
        others.map(|(_, bytes)| bytes).sum()
    }

    /// What each of the processes reads from files.
    fn read(&mut self) {
        let reads = reads(self.plans.iter().map(|(_, survey)| survey));
        let others = self.reads_for_others.unwrap_or_default();
        for (plan, _) in &mut self.plans {
            plan.read = reads.get(&plan.process).copied().unwrap_or_default() + others;
        }
        if self.reads_for_others.is_some() {
            self.total.bytes.read = self.plans.iter().map(|(plan, _)| plan.read).sum();
        }
    }

    /// Most processes that one sends to or receives from, as an exchange has buffers for.
    fn partners(&self) -> u64 {
        let mut asked: BTreeMap<u32, u64> = BTreeMap::new();
        for sender in self
            .plans
            .iter()
            .flat_map(|(_, survey)| survey.senders.keys())
        {
            *asked.entry(*sender).or_default() += 1;
        }
        let senders = self.plans.iter().map(|(plan, _)| plan.partners);
        senders.chain(asked.into_values()).max().unwrap_or_default()
    }

    fn finish(mut self, reach: &Reach) -> Simulated {
        self.read();
        let partners = self.plans.iter().map(|(plan, _)| plan.partners).max();
        let partners = partners.unwrap_or_default();
        let received = self.plans.iter().map(|(plan, _)| plan.received).max();
        let exchange = Exchange::of(
            self.cluster.processes,
            self.partners(),
            received.unwrap_or_default(),
            self.question.memory_bytes,
        );
        for (plan, survey) in &mut self.plans {
            plan.rounds = exchange.rounds(survey);
        }
        let rounds = self.plans.iter().map(|(plan, _)| plan.rounds).max();
        let total = &mut self.total;
        total.plan.rounds = rounds.unwrap_or_default();
        total.partners_max = partners;
        total.processes_planned = u32::try_from(self.plans.len()).unwrap_or(u32::MAX);
        let work = |plan: &ProcessPlan| plan.read + plan.received + plan.written;
        let most = self.plans.iter().map(|(plan, _)| work(plan)).max();
        let sum: u64 = self.plans.iter().map(|(plan, _)| work(plan)).sum();
        total.balance_max_over_mean = ratio(most.unwrap_or(0) * self.plans.len() as u64, sum);
        let shares = Shares {
            source: self.cluster.storage.shares_source(),
            destination: self.cluster.storage.shares_destination(),
        };
        // One process is taken for all of its node, and those planned for stand for all.
        let times = match self.question.process {
            Some(_) => u64::from(self.cluster.per_node),
            None => 1,
        };
        let mut nodes = Nodes::new(reach.nodes.len());
        for ((plan, survey), weight) in self.plans.iter().zip(&self.weights) {
            nodes.add((plan.process, survey), reach, shares, (times, *weight));
        }
        let world = ratio(u64::from(self.cluster.processes), self.plans.len() as u64);
        let machine = &self.question.machine;
        total.plan.seconds_estimated = nodes.seconds(machine, shares, total.plan.rounds, world);
        total.memory_peak_bytes_max = peak_memory_bytes();
        if let Some(account) = &mut total.account {
            let surveys = self
                .plans
                .iter()
                .map(|(plan, survey)| (plan.process, survey, plan.read));
            account.plan(surveys, &reach.node_of, reach.nodes.len());
        }
        let load = |plan: &ProcessPlan| Load {
            process: plan.process,
            read: plan.read,
            received: plan.received,
            written: plan.written,
        };
        total.loads = self.plans.iter().map(|(plan, _)| load(plan)).collect();
        let listed = self.plans.into_iter().take(LISTED_MAX);
        total.per_process = listed.map(|(plan, _)| plan).collect();
        self.total
    }
}
