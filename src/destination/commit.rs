//! The last step: what has been moved gets its manifest and is put in place.

use crate::catalog::{Catalog, Place, SmallFile};
use crate::course::{self, Leaves};
use crate::destination::digests;
use crate::destination::place::Destination;
use crate::destination::resume::{Resumed, State};
use crate::destination::sites;
use crate::destination::stage::Staged;
use crate::exchange::{Operation, World, agree, all_reduce, decode, encode, exchange_bytes};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::plan::TensorPlan;
use crate::store::Format;
use crate::store::io::{self, ReadFile, WriteFile};
use crate::store::manifest::{
    self, FileParts, FileRecord, Hex, Manifest, Placed, TensorRecord, structure,
};
use crate::store::replaceable::Replace;
use crate::store::whole::Whole;
use crate::strategy::json::Document;
use crate::tensor::digest::{checksum, finish, residue, shift};
use crate::transport::{Done, Residues, Sums};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is put in place, and what its manifest says.
pub(crate) struct Commit<'a> {
    /// The command.
    pub(crate) command: &'a str,
    /// The job's fingerprint.
    pub(crate) job: u64,
    /// Fingerprint of what was asked for.
    pub(crate) request: u64,
    /// Of that and the paths that are read, where the job replaces its own earlier results.
    pub(crate) origin: Option<u64>,
    /// Ranks of the whole result.
    pub(crate) ranks: u32,
    /// CRC of each strategy.
    pub(crate) layouts: [(&'static str, Option<u64>); 2],
    /// What the files are cut by, where they don't tell.
    pub(crate) strategy: Option<&'a Document>,
    /// What is noted of how tensors lie.
    pub(crate) told: &'a BTreeMap<String, String>,
    /// Where to.
    pub(crate) destination: &'a Destination,
    /// The files.
    pub(crate) catalog: &'a Catalog,
    /// What they are made of.
    pub(crate) plans: &'a [TensorPlan],
    /// So many of them, the first, are the same on every process.
    pub(crate) common: usize,
    /// Small files beside them.
    pub(crate) extras: &'a [SmallFile],
    /// Files of the directory that is replaced which the new one has too.
    pub(crate) links: &'a [String],
    /// What of what stands there it replaces.
    pub(crate) replace: Replace,
    /// Wait for the disk.
    pub(crate) flush: bool,
    /// Append a CRC-32 to each file, as ckpt files have it.
    pub(crate) trailers: bool,
    /// Ranks stand for files: a name in several of them is several tensors, not one.
    pub(crate) by_file: bool,
    /// Whether what was staged is left to be taken up again, if it comes to nothing.
    pub(crate) resume: bool,
    /// What must hold of what has been written before it is put in place.
    pub(crate) proof: &'a Proof<'a>,
}

/// Where the source is gone already on some nodes, and not on others.
const HALF_PLACED: &str = "some nodes may have the new files in place already: the same command, by as many processes on \
                           the same nodes, finishes it; until then keep what is hidden beside the directory";

/// What has been written, before it is put in place.
pub(crate) struct Shown<'a> {
    /// Every tensor, on every process.
    pub(crate) tensors: &'a BTreeMap<String, TensorRecord>,
    /// Digests of what was read for tensors of which other bytes are written, on every process.
    pub(crate) stored: &'a [(String, u64)],
    /// What this process has read of source tensors that come in pieces.
    pub(crate) traced: &'a Sums,
    /// The files of the directory that this process leads, site by site.
    pub(crate) files: &'a [SiteFiles],
    /// Ranks stand for files.
    pub(crate) by_file: bool,
}

/// Proves that what has been written may be put in place. Collective; fails on every process alike.
pub(crate) type Proof<'a> = dyn Fn(&Shown<'_>) -> Result<()> + 'a;

/// The files of a site, with their structures.
pub(crate) type SiteFiles = (Vec<Vec<Placed>>, Vec<FileRecord>);

impl Commit<'_> {
    /// Completes the staged files and puts them in place. Collective.
    ///
    /// # Errors
    /// The same on every process; then nothing is visible at the destination, and nothing is left of what was staged but for
    /// another run to take up.
    pub(crate) fn make(&self, world: &World, staged: &Staged, done: Done) -> Result<()> {
        let resumed = &staged.resumed;
        let completed = self.complete(world, staged, done);
        self.destination.or_discard(self.resume, completed)?;
        let parted = self.is_parted(world)?;
        if parted {
            course::leaves(Leaves::Unknown);
        }
        let placed = if resumed.state == State::Placed {
            self.destination.discard_replaced()
        } else {
            self.destination.publish(self.replace, self.flush)
        };
        if planted(Bug::LeaderAlone) {
            return placed;
        }
        let placed = agree(world, placed);
        if !parted {
            return self.destination.or_discard(self.resume, placed);
        }
        // What lacks elsewhere of the new is nowhere but in what is staged there: others' part of the source is gone.
        placed.map_err(|mut fault| {
            let own = fault.hint.take();
            let own = own.map_or_else(String::new, |hint| format!("{hint}. "));
            fault.hint(format!("{own}{HALF_PLACED}"))
        })
    }

    /// Whether the source is replaced by parts, each on a disk of its own. Collective.
    fn is_parted(&self, world: &World) -> Result<bool> {
        if self.replace != Replace::Source || self.destination.shared {
            return Ok(false);
        }
        let mut leaders = [u64::from(self.destination.leads)];
        all_reduce(world, &mut leaders, Operation::Sum)?;
        Ok(leaders[0] > 1)
    }

    /// Completes the staged files, and their manifests. Collective.
    fn complete(&self, world: &World, staged: &Staged, mut done: Done) -> Result<()> {
        let resumed = &staged.resumed;
        let complete = staged.is_complete();
        if !planted(Bug::DoneForgotten) {
            done.add(&resumed.done);
        }
        done.shards.settle();
        if self.trailers {
            agree(world, append_crcs(&staged.created))?;
        }
        let extras = if complete { &[] } else { self.extras };
        let shared = match complete {
            true => Ok(()),
            false => self.destination.share(self.flush),
        };
        agree(world, shared)?;
        let links = if complete { &[] } else { self.links };
        let finished = self.destination.finish(&staged.created, extras, self.flush);
        let finished = finished.and_then(|()| self.destination.link(links, self.flush));
        agree(world, finished)?;
        self.describe(world, &done, resumed)
    }

    /// Writes the manifests. Collective.
    fn describe(&self, world: &World, done: &Done, resumed: &Resumed) -> Result<()> {
        let known = resumed.manifest.as_ref();
        let of = digests::Of {
            plans: self.plans,
            common: self.common,
            by_file: self.by_file,
            destination: self.destination,
        };
        let (tensors, stored) = digests::all(world, &of, done, known)?;
        let files = self.files(world, done, resumed)?;
        (self.proof)(&Shown {
            tensors: &tensors,
            stored: &stored,
            traced: &done.traced,
            files: &files,
            by_file: self.by_file,
        })?;
        let whole = sites::whole(world, self.destination, self.ranks, self.request)?;
        let written = if self.destination.leads && resumed.manifest.is_none() {
            self.write_manifest(tensors, files, whole, resumed.survives.clone())
        } else {
            Ok(())
        };
        agree(world, written)
    }

    fn write_manifest(
        &self,
        mut tensors: BTreeMap<String, TensorRecord>,
        sites: Vec<SiteFiles>,
        whole: Whole,
        survives: Option<String>,
    ) -> Result<()> {
        for (_, schema) in self.catalog.distinct_schemas() {
            for (name, record) in manifest::counts(schema) {
                tensors.entry(name).or_insert(record);
            }
        }
        let layouts = self.layouts.iter();
        let mut manifest = Manifest {
            schema: manifest::SCHEMA,
            tool: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            command: self.command.to_owned(),
            job: Hex(self.job),
            layouts: layouts
                .map(|(side, crc)| ((*side).to_owned(), crc.map(Hex)))
                .collect(),
            strategy: self.strategy.cloned(),
            told: self.told.clone(),
            whole: Some(whole),
            origin: self.origin.map(Hex),
            survives,
            tensors,
            carried: self.links.to_vec(),
            ..Manifest::default()
        };
        let small = self.extras.iter().map(|file| FileRecord {
            path: file.path.clone(),
            bytes: file.bytes.len() as u64,
            crc64: Hex(checksum(&file.bytes)),
            structure: None,
            shards: Vec::new(),
        });
        manifest.add(&[], small.collect());
        for (structures, files) in sites {
            manifest.add(&structures, files);
        }
        let path = self.destination.staging.partial().join(manifest::NAME);
        io::remove(&path)?;
        let denied = self.destination.denied;
        io::write_small_without(&path, &manifest.to_bytes()?, self.flush, denied)
    }

    /// The files of the directory that this process leads, site by site. Collective.
    fn files(&self, world: &World, done: &Done, resumed: &Resumed) -> Result<Vec<SiteFiles>> {
        // Every process to the head of its site, which knows the structures; those to the leader.
        let mine = agree(world, encode(&done.shards))?;
        let mut shards = Residues::default();
        let parts = exchange_bytes(world, vec![(self.destination.head, mine)])?;
        let parts: Result<Vec<Residues>> = parts.iter().map(|(_, bytes)| decode(bytes)).collect();
        let parts = parts.map(|parts| {
            shards.extend(parts.into_iter().flatten());
            shards.settle();
        });
        let complete = matches!(resumed.state, State::Staged | State::Placed);
        let heads = self.destination.head == world.process() && !complete;
        let files = if heads {
            parts
                .and_then(|()| self.site_files(&shards))
                .and_then(|(structures, files)| {
                    let files = files.into_iter().map(FileParts::from);
                    encode(&(structures, files.collect::<Vec<_>>()))
                })
                .map(|bytes| vec![(self.destination.leader, bytes)])
        } else {
            parts.map(|()| Vec::new())
        };
        let sites = exchange_bytes(world, agree(world, files)?)?;
        let received = |(_, bytes): &(u32, Vec<u8>)| {
            let (structures, files): (_, Vec<FileParts>) = decode(bytes)?;
            Ok((
                structures,
                files.into_iter().map(FileRecord::from).collect(),
            ))
        };
        agree(world, sites.iter().map(received).collect())
    }

    /// The records of a site's files. Local.
    fn site_files(&self, shards: &Residues) -> Result<SiteFiles> {
        let mut structures: Vec<Vec<Placed>> = Vec::new();
        let mut known = HashMap::new();
        let mut records = Vec::new();
        let files = self.catalog.ranks.iter().flat_map(|(rank, files)| {
            (0u32..)
                .zip(files)
                .map(move |(number, file)| (*rank, number, file))
        });
        for (rank, number, file) in files {
            let schema = &file.schema;
            let at = *known.entry(Arc::as_ptr(schema)).or_insert_with(|| {
                structures.push(structure(schema));
                structures.len() - 1
            });
            let laid = schema.laid();
            let mut whole = 0;
            for (offset, bytes) in &schema.literals {
                whole ^= shift(residue(bytes), schema.size - offset - bytes.len() as u64);
            }
            let mut crcs = Vec::with_capacity(schema.entries.len());
            for (entry, place) in schema.entries.iter().zip(0u32..) {
                let place = Place {
                    rank,
                    file: number,
                    entry: place,
                };
                let mut shard = 0;
                for (segment, range) in (0u32..).zip(&entry.segments) {
                    let length = range.end - range.start;
                    let part = shards.get(place, segment);
                    // A tensor that is part of the layout has been counted into the file with it.
                    let own = laid.get(range).map_or(part, |bytes| residue(bytes));
                    shard = shift(shard, length) ^ own;
                    whole ^= shift(part, schema.size - range.end);
                }
                crcs.push(Hex(finish(shard, entry.bytes())));
            }
            let mut bytes = schema.size;
            if self.trailers {
                let tail = self.tail(&file.path, bytes)?;
                whole = shift(whole, tail.len() as u64) ^ residue(&tail);
                bytes += tail.len() as u64;
            }
            records.push(FileRecord {
                path: file.path.clone(),
                bytes,
                crc64: Hex(finish(whole, bytes)),
                structure: Some(at),
                shards: crcs,
            });
        }
        Ok((structures, records))
    }

    /// What has been appended to a staged file.
    fn tail(&self, path: &str, from: u64) -> Result<Vec<u8>> {
        let file = ReadFile::open(&self.destination.staging.partial().join(path))?;
        let length = usize::try_from(file.size().saturating_sub(from))
            .map_err(|_| Fault::new(Kind::Internal, "a trailer is too long"))?;
        let mut tail = zeroed(length)?;
        file.read_at(&mut tail, from)?;
        Ok(tail)
    }
}

/// Appends a CRC to each finished file. Local.
fn append_crcs(created: &[WriteFile]) -> Result<()> {
    for file in created {
        let size = ReadFile::open(file.path())?;
        let trailer = Format::recognise(&size)?.finish(&size)?;
        file.write_at(&trailer, size.size())?;
    }
    Ok(())
}
