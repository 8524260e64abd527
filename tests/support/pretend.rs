//! A whole world in one thread: every process of every site does its share of a plan, in memory.

use shardloom::catalog::{Catalog, Entry, Place, ShardFile};
use shardloom::plan::TensorPlan;
use shardloom::plan::arrange::{Arranged, Files, Ranks, arrange};
use shardloom::plan::build::{Leftovers, Select, build};
use shardloom::plan::inventory::Inventory;
use shardloom::plan::machine::Machine;
use shardloom::plan::reach::{ExchangeMode, Reach};
use shardloom::plan::turns::{Home, Sharing};
use shardloom::plan::work::{Division, Filled, Site, Skip, Slab, Work};
use shardloom::store::Format;
use shardloom::strategy::Strategy;
use shardloom::tensor::copy;
use shardloom::tensor::dtype::Dtype;
use shardloom::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A checkpoint in memory: its structure, and the bytes of every file by rank and number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) catalog: Catalog,
    pub(crate) files: BTreeMap<(u32, u32), Vec<u8>>,
}

/// Processes, nodes, and what each node sees.
#[derive(Clone, Debug)]
pub(crate) struct Pretended {
    pub(crate) processes: u32,
    pub(crate) nodes: u32,
    /// Whether processes are dealt to the nodes in turn, not in blocks.
    pub(crate) in_turn: bool,
    /// For each source rank (repeating) the nodes that see it, as bits; none means the home's.
    pub(crate) seen: Vec<u32>,
    /// Whether all nodes write to one place.
    pub(crate) shared_destination: bool,
    pub(crate) mode: ExchangeMode,
}

/// What is made of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) leftovers: Leftovers,
    pub(crate) files: Files,
    pub(crate) format: Format,
}

/// Bytes of the blocks of files that fall to one node each.
const BLOCK_BYTES: u64 = 96;

/// Where a written byte stands: its value, and how often it was written.
type Written = BTreeMap<(u32, u32), (Vec<u8>, Vec<u8>)>;

fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("a small number")
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a small number")
}

impl Held {
    /// Files with these tensors, one a rank.
    pub(crate) fn of(format: Format, ranks: &BTreeMap<u32, Vec<Made>>) -> Held {
        let mut held = Held::default();
        for (rank, tensors) in ranks {
            let listing: Vec<(Arc<str>, Dtype, Shape)> = tensors
                .iter()
                .map(|made| (made.name.clone(), made.dtype, made.shape.clone()))
                .collect();
            let schema = format.design(&listing, &BTreeMap::new()).expect("a layout");
            let mut bytes = vec![0; index(schema.size)];
            for (offset, literal) in &schema.literals {
                bytes[index(*offset)..][..literal.len()].copy_from_slice(literal);
            }
            for made in tensors {
                let entry = schema.get(&made.name).expect("it was listed");
                put(entry, 0, &made.data, &mut bytes);
            }
            let path = format!("rank_{rank}/net.{}", format.extension());
            let schema = Arc::new(schema);
            held.catalog
                .ranks
                .insert(*rank, vec![ShardFile { path, schema }]);
            held.files.insert((*rank, 0), bytes);
        }
        held
    }

    /// The bytes of the tensor at `place`, in one piece.
    pub(crate) fn bytes(&self, place: Place) -> Vec<u8> {
        let entry = self.catalog.entry(place);
        let file = &self.files[&(place.rank, place.file)];
        let mut bytes = Vec::new();
        for segment in &entry.segments {
            bytes.extend_from_slice(&file[index(segment.start)..index(segment.end)]);
        }
        bytes
    }

    /// Every tensor: rank, name, dtype, shape, bytes.
    pub(crate) fn tensors(&self) -> BTreeMap<(u32, String), (Dtype, Shape, Vec<u8>)> {
        let mut all = BTreeMap::new();
        for (rank, files) in &self.catalog.ranks {
            for entry in files.iter().flat_map(|file| &file.schema.entries) {
                let place = self.catalog.find(*rank, &entry.name).expect("its place");
                let tensor = (entry.dtype, entry.shape.clone(), self.bytes(place));
                all.insert((*rank, entry.name.to_string()), tensor);
            }
        }
        all
    }
}

/// A tensor of one rank.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
    pub(crate) data: Vec<u8>,
}

fn put(entry: &Entry, begin: u64, data: &[u8], file: &mut [u8]) {
    let result = entry.locate(begin..begin + data.len() as u64, |offset, part| {
        let data = &data[index(part.start - begin)..index(part.end - begin)];
        file[index(offset)..][..data.len()].copy_from_slice(data);
        Ok(())
    });
    result.expect("nothing fails here");
}

impl Pretended {
    /// One process that sees everything.
    pub(crate) fn alone() -> Self {
        Pretended {
            processes: 1,
            nodes: 1,
            in_turn: false,
            seen: vec![u32::MAX],
            shared_destination: true,
            mode: ExchangeMode::Auto,
        }
    }

    fn node(&self, process: u32) -> u32 {
        if self.in_turn {
            process % self.nodes
        } else {
            process * self.nodes / self.processes
        }
    }

    fn home(&self, rank: u32, ranks: u32) -> u32 {
        rank * self.processes / ranks
    }

    /// Who sees what of these source ranks.
    fn reach(&self, ranks: &[u32]) -> Reach {
        let mut seen = vec![BTreeSet::new(); self.nodes as usize];
        let count = ranks.last().map_or(1, |last| last + 1);
        for (number, rank) in ranks.iter().enumerate() {
            let mask = self.seen[number % self.seen.len()] & ((1 << self.nodes) - 1);
            for (node, seen) in (0..).zip(&mut seen) {
                let home = self.node(self.home(*rank, count));
                if mask & (1 << node) != 0 || (mask == 0 && node == home) {
                    seen.insert(*rank);
                }
            }
        }
        let members = |node| (0..self.processes).filter(move |p| self.node(*p) == node);
        let nodes = (0..self.nodes)
            .map(|node| members(node).collect())
            .collect();
        let seen = seen.into_iter().map(Arc::new).collect();
        // What several nodes see lies on storage that they share.
        let common = ranks.iter().copied().collect();
        Reach::new(0, nodes, seen, count, self.mode).with_common(common)
    }

    /// Who builds which of `ranks` destination ranks.
    fn homes(&self, ranks: u32) -> Vec<Home> {
        let apart = !self.shared_destination;
        let homes = (0..ranks).filter(|_| apart).map(|rank| {
            let node = self.node(self.home(rank, ranks));
            Home { site: node, node }
        });
        homes.collect()
    }

    /// The sites that build `ranks` destination ranks, each with its members.
    fn sites(&self, ranks: u32) -> Vec<(Vec<u32>, Vec<u32>)> {
        if self.shared_destination {
            return vec![((0..self.processes).collect(), (0..ranks).collect())];
        }
        let site = |node| {
            let members = (0..self.processes).filter(|p| self.node(*p) == node);
            let built = (0..ranks).filter(|rank| self.node(self.home(*rank, ranks)) == node);
            (members.collect(), built.collect())
        };
        (0..self.nodes).map(site).collect()
    }

    /// Makes `request` of `source`: plans as each site does, and moves every process's share.
    pub(crate) fn run(
        &self,
        source: &Held,
        from: Option<&Strategy>,
        to: Option<&Strategy>,
        request: &Request,
    ) -> Result<Held, String> {
        let inventory = Inventory::new(&source.catalog, from).map_err(|f| format!("{f:?}"))?;
        let mut out = Out::default();
        for (members, ranks) in self.sites(to.map_or(1, Strategy::ranks)) {
            if ranks.is_empty() {
                continue;
            }
            let select = Select::default();
            let build = build(
                &inventory,
                &source.catalog,
                to,
                &select,
                request.leftovers,
                &ranks,
            )
            .map_err(|fault| format!("{fault:?}"))?;
            let metadata = BTreeMap::new();
            let arranged = arrange(
                build,
                &request.files,
                request.format,
                &metadata,
                Ranks::all(&ranks),
            )
            .map_err(|fault| format!("{fault:?}"))?;
            let homes = self.homes(to.map_or(1, Strategy::ranks));
            self.work(source, &arranged, &members, &ranks, &homes, &mut out)?;
        }
        out.finish()
    }

    /// Moves the share of every member of a site.
    pub(crate) fn work(
        &self,
        source: &Held,
        arranged: &Arranged,
        members: &[u32],
        ranks: &[u32],
        homes: &[Home],
        out: &mut Out,
    ) -> Result<(), String> {
        out.create(&arranged.catalog)?;
        let source_ranks: Vec<u32> = source.catalog.ranks.keys().copied().collect();
        let mut reach = self.reach(&source_ranks);
        let machine = Machine::default();
        let mut shards = Shards {
            held: source,
            bytes: BTreeMap::new(),
        };
        for (index, process) in members.iter().enumerate() {
            reach.process = *process;
            let site = Site {
                ranks: ranks.to_vec(),
                processes: narrow(members.len()),
                index: narrow(index),
                everybody: members.len() == self.processes as usize,
                division: Division::of(&reach)
                    .filter(|_| members.len() == self.processes as usize)
                    .map(|division| Division {
                        block_bytes: BLOCK_BYTES,
                        ..division
                    }),
            };
            let work = Work {
                plans: &arranged.plans,
                source: &source.catalog,
                destination: &arranged.catalog,
                site: &site,
                reach: &reach,
                skip: &Skip::Nothing,
                sharing: Some(Sharing {
                    homes,
                    kept: &arranged.kept,
                    machine: &machine,
                }),
                windows_max: u64::MAX,
            };
            let mut trouble = Ok(());
            let walked = work.for_each_slab(|slab| {
                if trouble.is_ok() {
                    trouble = out.slab(&slab, &reach, &mut shards, &arranged.catalog);
                }
                Ok(())
            });
            walked.map_err(|fault| format!("{fault:?}"))?;
            trouble?;
        }
        Ok(())
    }

    /// Makes tensors of `plans` in files of these ranks, all on one site.
    pub(crate) fn make(
        &self,
        source: &Held,
        plans: Vec<TensorPlan>,
        ranks: u32,
        format: Format,
    ) -> Result<Held, String> {
        let mut catalog = Catalog::default();
        let listing: Vec<_> = plans
            .iter()
            .map(|plan| {
                let shape = plan.destination.grid.cell_shape().clone();
                (plan.name.clone(), plan.dtype, shape)
            })
            .collect();
        let schema = format.design(&listing, &BTreeMap::new());
        let schema = Arc::new(schema.map_err(|fault| format!("{fault:?}"))?);
        for rank in 0..ranks {
            let path = format!("rank_{rank}/net.{}", format.extension());
            let schema = schema.clone();
            catalog.ranks.insert(rank, vec![ShardFile { path, schema }]);
        }
        let arranged = Arranged {
            catalog,
            common: plans.len(),
            plans,
            ..Arranged::default()
        };
        let members: Vec<u32> = (0..self.processes).collect();
        let ranks: Vec<u32> = (0..ranks).collect();
        let mut out = Out::default();
        self.work(source, &arranged, &members, &ranks, &[], &mut out)?;
        out.finish()
    }
}

/// Source shards in one piece each, gathered when first needed.
struct Shards<'a> {
    held: &'a Held,
    bytes: BTreeMap<Place, Vec<u8>>,
}

/// A destination being written.
#[derive(Default)]
pub(crate) struct Out {
    catalog: Catalog,
    written: Written,
    /// The node that writes each block, by rank, file and number.
    nodes: BTreeMap<(u32, u32, u64), u32>,
}

impl Out {
    fn create(&mut self, catalog: &Catalog) -> Result<(), String> {
        for (rank, files) in &catalog.ranks {
            for (number, file) in files.iter().enumerate() {
                let size = index(file.schema.size);
                let (mut bytes, mut count) = (vec![0; size], vec![0u8; size]);
                for (offset, literal) in &file.schema.literals {
                    let at = index(*offset)..index(*offset) + literal.len();
                    bytes[at.clone()].copy_from_slice(literal);
                    count[at].iter_mut().for_each(|count| *count += 1);
                }
                let key = (*rank, narrow(number));
                if self.written.insert(key, (bytes, count)).is_some() {
                    return Err(format!("two sites make {}", file.path));
                }
            }
            self.catalog.ranks.insert(*rank, files.clone());
        }
        Ok(())
    }

    /// Builds a slab as a process does and writes it to all its targets.
    fn slab(
        &mut self,
        slab: &Slab<'_>,
        reach: &Reach,
        shards: &mut Shards<'_>,
        destination: &Catalog,
    ) -> Result<(), String> {
        let mut tiles = Vec::new();
        for filled in slab.filled() {
            let begin = tiles.len();
            let window = filled.window.clone();
            tiles.resize(begin + index(window.end - window.start), 0u8);
            fill(slab, &filled, reach, shards, &mut tiles[begin..])?;
        }
        if let Some(block) = &slab.block {
            let bytes = tiles.clone();
            if !copy::run(&block.cut(&(slab.begin..slab.end)), &bytes, &mut tiles) {
                return Err("cells reach outside their block".into());
            }
        }
        let mut tiles = &tiles[..];
        for cell in slab.cells.iter() {
            let (tile, rest) = tiles.split_at(index(slab.window()));
            tiles = rest;
            for target in &cell.targets {
                let entry = destination.entry(*target);
                let key = (target.rank, target.file);
                let (bytes, count) = self.written.get_mut(&key).ok_or("no such file")?;
                put(entry, slab.begin, tile, bytes);
                let node = reach.node();
                let mut met = None;
                let located = entry.locate(slab.begin..slab.end, |offset, part| {
                    let end = offset + part.end - part.start;
                    for block in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
                        let first = self.nodes.entry((target.rank, target.file, block));
                        if *first.or_insert(node) != node {
                            met = Some(block);
                        }
                    }
                    let at = index(offset)..index(offset + part.end - part.start);
                    count[at].iter_mut().for_each(|count| *count += 1);
                    Ok(())
                });
                located.map_err(|fault| format!("{fault:?}"))?;
                if let Some(block) = met {
                    return Err(format!("two nodes write block {block} of {target:?}"));
                }
            }
        }
        Ok(())
    }

    /// What was made, if every byte was written exactly once.
    pub(crate) fn finish(self) -> Result<Held, String> {
        let mut held = Held {
            catalog: self.catalog,
            ..Held::default()
        };
        for (key, (bytes, count)) in self.written {
            if let Some(at) = count.iter().position(|count| *count != 1) {
                let files = &held.catalog.ranks[&key.0];
                let path = &files[key.1 as usize].path;
                return Err(format!(
                    "byte {at} of {path} is written {} times",
                    count[at]
                ));
            }
            held.files.insert(key, bytes);
        }
        Ok(held)
    }
}

/// Fills `tile` as those do who serve it.
fn fill(
    slab: &Slab<'_>,
    filled: &Filled<'_>,
    reach: &Reach,
    shards: &mut Shards<'_>,
    tile: &mut [u8],
) -> Result<(), String> {
    for transfer in filled.transfers {
        let mut clipped = Vec::new();
        let window = &filled.window;
        transfer.copy.clip(window.start, window.end, &mut clipped);
        if clipped.is_empty() {
            continue;
        }
        let ranks = transfer.candidates.iter().map(|place| place.rank);
        let served = reach
            .serve(ranks, slab.salt, filled.share, slab.turns.as_deref())
            .ok_or("nobody serves it")?;
        let place = transfer.candidates[served.candidate];
        let mut reader = reach.clone();
        reader.process = served.process;
        if !reader.sees(place.rank) {
            return Err(format!("{served:?} doesn't see rank {}", place.rank));
        }
        let held = shards.held;
        let shard = shards
            .bytes
            .entry(place)
            .or_insert_with(|| held.bytes(place));
        for mut part in clipped {
            part.destination -= window.start;
            // What is sent goes through a dense packing.
            let sent = served.process != reach.process;
            let copied = if sent {
                let mut packed = vec![0; index(part.bytes())];
                copy::run(&part.packed(0), shard, &mut packed)
                    && copy::run(&part.unpacked(0), &packed, tile)
            } else {
                copy::run(&part, shard, tile)
            };
            if !copied {
                return Err(format!("{part:?} reaches outside"));
            }
        }
    }
    Ok(())
}
