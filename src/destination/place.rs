//! Where the destination is, who shares it, and its files from creation to commit.

use crate::catalog::{Catalog, ShardFile, SmallFile};
use crate::destination::probe::Storages;
use crate::destination::rooms;
use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::plan::turns::Home;
use crate::plan::work::{Division, Site};
use crate::store::commit::Staging;
use crate::store::io::{self, Standing, WriteFile};
use crate::store::replaceable::Replace;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which process builds what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Placement {
    /// All processes that see a destination share its work by bytes.
    #[default]
    Auto,
    /// Destination rank r of N is built by process floor(r * P / N) alone.
    Identity,
    /// Everything is built on process 0's node.
    Root,
}

/// The destination as one process sees it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its staging directory.
    pub staging: Staging,
    /// Who builds which ranks together with this process.
    pub site: Site,
    /// Who builds each rank; empty if all ranks are built on one node, or by all processes.
    pub homes: Vec<Home>,
    /// Whether this process prepares and publishes the directory for those that share it.
    pub leads: bool,
    /// The ranks whose files lie in the directory that this process sees.
    pub beside: Vec<u32>,
    /// The process that does so for this one.
    pub leader: u32,
    /// The first of the processes that build these ranks.
    pub head: u32,
    /// Whether all processes write into the same directory.
    pub shared: bool,
    /// Whether all that write into the directory are on one node.
    pub one_node: bool,
    /// Permissions that nobody gets: those that the source's files haven't.
    pub denied: u32,
    /// The files that are a file of the source, by rank and number.
    pub linked: BTreeMap<(u32, u32), Linked>,
}

/// A file that is one of the source.
#[derive(Clone, Debug)]
pub struct Linked {
    /// That file.
    pub from: PathBuf,
    /// Its path inside the destination.
    pub to: String,
}

impl Destination {
    /// Finds out who shares the destination at `path` and divides its `ranks`; where nodes have disks
    /// of their own, rank r is built on that of process `home(r)`: by the first of the nodes that share it.
    /// Collective.
    ///
    /// # Errors
    /// [`Kind::Io`], [`Kind::Usage`].
    pub fn find(
        world: &World,
        topology: &Topology,
        path: &Path,
        ranks: u32,
        home: impl Fn(u32) -> u32,
        placement: Placement,
    ) -> Result<Destination> {
        let storages = Storages::find(world, topology, path)?;
        let shared = storages.shared();
        let staging = agree(world, Staging::new(path))?;
        let process = world.process();
        let node = topology.node_of[process as usize] as usize;
        let together = placement != Placement::Auto || shared;
        let home = |rank| match home(rank) {
            process if together => process,
            process => storages.writer(topology, process),
        };
        let everybody: Vec<u32> = (0..world.size()).collect();
        let members: &[u32] = match placement {
            Placement::Identity => &everybody[process as usize..][..1],
            Placement::Auto if shared => &everybody,
            Placement::Root | Placement::Auto => &topology.nodes[node],
        };
        let built = |rank: &u32| match placement {
            Placement::Root => node == 0,
            Placement::Auto if shared => true,
            Placement::Identity | Placement::Auto => members.contains(&home(*rank)),
        };
        let built = (0..ranks).filter(built).collect();
        let index = members
            .iter()
            .position(|member| *member == process)
            .unwrap_or_default();
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let lies = |rank: &u32| match placement {
            Placement::Root => node == 0,
            _ => shared || storages.same(topology, process, home(*rank)),
        };
        let lying: Vec<u32> = (0..ranks).filter(lies).collect();
        let first = storages.leader(topology, process);
        let at = |rank| {
            let process = home(rank);
            let node = topology.node_of[process as usize];
            let alone = placement == Placement::Identity;
            let site = if alone { process } else { node };
            Home { site, node }
        };
        let apart = placement == Placement::Identity || !together;
        let apart = topology.nodes.len() > 1 && apart;
        Ok(Destination {
            staging,
            homes: (0..ranks).filter(|_| apart).map(at).collect(),
            leads: process == first && !lying.is_empty(),
            beside: lying,
            leader: first,
            head: members.first().copied().unwrap_or(process),
            shared,
            one_node: !together || storages.of_one_node(topology, process),
            denied: 0,
            linked: BTreeMap::new(),
            site: Site {
                ranks: built,
                processes: narrow(members.len()),
                index: narrow(index),
                everybody: members.len() == everybody.len(),
                division: None,
            },
        })
    }

    /// Where several nodes, which see of the source what `reach` says, write the same files: lets whole
    /// blocks of them fall to each. Local.
    pub fn divide(&mut self, reach: &Reach) {
        if self.site.everybody {
            let bytes = std::env::var("SHARDLOOM_BLOCK_BYTES").ok();
            let bytes = bytes.and_then(|text| text.parse().ok());
            self.site.division = Division::of(reach).map(|division| Division {
                // Tests have small files.
                block_bytes: bytes.unwrap_or(division.block_bytes),
                ..division
            });
        }
    }

    /// The files that fall to this process to create and flush.
    pub fn own_files<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = &'a ShardFile> {
        let works = !self.site.ranks.is_empty();
        let files = catalog.ranks.iter().filter(move |_| works);
        let files =
            files.flat_map(|(rank, files)| files.iter().zip(0u32..).map(|(f, n)| (*rank, n, f)));
        let written =
            |(rank, number, _): &(u32, u32, _)| !self.linked.contains_key(&(*rank, *number));
        let files = files.filter(written).map(|(_, _, file)| file);
        let (index, processes) = (self.site.index as usize, self.site.processes as usize);
        files.skip(index).step_by(processes.max(1))
    }

    /// Checks that the files of `catalog` have room. Local.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`].
    pub fn check_room(&self, catalog: &Catalog) -> Result<()> {
        if !self.leads {
            return Ok(());
        }
        let linked = self.linked.keys().filter_map(|(rank, number)| {
            let file = catalog.ranks.get(rank)?.get(*number as usize)?;
            Some(file.schema.size)
        });
        let needed = catalog.bytes().saturating_sub(linked.sum());
        let free = io::free_bytes(self.staging.parent())?;
        let files = catalog.ranks.values().flatten().count() as u64;
        if let Some(room) = io::free_files(self.staging.parent())?
            && files > room
        {
            let message = format!("needs {files} files, {room} more can be made there");
            let fault = Fault::new(Kind::NoSpace, message);
            return Err(fault.file(self.staging.parent().display().to_string()));
        }
        if needed <= free {
            return Ok(());
        }
        let message = format!("needs {needed} bytes, {free} are free there");
        Err(Fault::new(Kind::NoSpace, message).file(self.staging.parent().display().to_string()))
    }

    /// Creates the files that fall to this process, in full size; those that an earlier run has left
    /// are opened. Local.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`].
    pub fn create(&self, catalog: &Catalog) -> Result<Vec<WriteFile>> {
        let mut created = Vec::new();
        for file in self.own_files(catalog) {
            let path = self.staging.partial().join(&file.path);
            self.make_room(&file.path)?;
            let out = if io::size(&path)? == Some(file.schema.size) {
                WriteFile::open(&path)?
            } else {
                WriteFile::create_without(&path, file.schema.size, self.denied)?
            };
            for (offset, bytes) in &file.schema.literals {
                out.write_at(bytes, *offset)?;
            }
            // The block may be another node's, which must find these bytes there.
            if self.site.division.is_some() {
                out.sync()?;
            }
            // Few handles stay; the others are opened again when they are flushed.
            let stays = created.len() < io::kept_open();
            created.push(if stays { out } else { out.resting() });
        }
        Ok(created)
    }

    /// Makes the directories above the staged file `inside`; each takes after the one that it
    /// replaces. Local.
    fn make_room(&self, inside: &str) -> Result<()> {
        let (partial, old) = (self.staging.partial(), self.staging.destination());
        let above = Path::new(inside).parent().unwrap_or(Path::new(""));
        let mut directory = PathBuf::new();
        for part in above.components() {
            directory.push(part);
            let path = partial.join(&directory);
            if io::glance(&path)? != Standing::Nothing {
                continue;
            }
            io::make_directory(&path)?;
            let model = old.join(&directory);
            match io::glance(&model)? {
                Standing::Directory | Standing::EmptyDirectory => io::take_after(&path, &model)?,
                Standing::Nothing | Standing::File => io::restrict(&path, self.denied)?,
            }
        }
        Ok(())
    }

    /// Writes the small files and flushes what this process has created. Local.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`].
    pub fn finish(&self, created: &[WriteFile], extras: &[SmallFile], flush: bool) -> Result<()> {
        if self.leads {
            for file in extras {
                let path = self.staging.partial().join(&file.path);
                self.make_room(&file.path)?;
                io::remove(&path)?;
                io::write_small_without(&path, &file.bytes, flush, self.denied)?;
            }
        }
        if !flush {
            return Ok(());
        }
        created.iter().try_for_each(WriteFile::sync)?;
        let partial = self.staging.partial();
        let files = created.iter().map(WriteFile::path);
        let files = files.filter_map(|path| path.strip_prefix(partial).ok());
        let extras = extras.iter().filter(|_| self.leads);
        let small = extras.map(|file| Path::new(&file.path));
        rooms::flush(partial, files.chain(small))
    }

    /// Puts the directory in place. Local.
    ///
    /// # Errors
    /// As [`Staging::publish`].
    pub fn publish(&self, replace: Replace, flush: bool) -> Result<()> {
        if !self.leads {
            return Ok(());
        }
        self.staging.publish(replace, flush)
    }

    /// Gives the files of the source that are the destination's their names here, those that fall to this
    /// process. Local.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`].
    pub fn share(&self, flush: bool) -> Result<()> {
        let (index, processes) = (self.site.index as usize, self.site.processes as usize);
        let own = self.linked.values().skip(index).step_by(processes.max(1));
        for Linked { from, to } in own {
            let path = self.staging.partial().join(to);
            self.make_room(to)?;
            io::remove(&path)?;
            io::share(from, &path, self.denied, flush)?;
        }
        if !flush {
            return Ok(());
        }
        let own = self.linked.values().skip(index).step_by(processes.max(1));
        rooms::flush(
            self.staging.partial(),
            own.map(|linked| Path::new(&linked.to)),
        )
    }

    /// Gives files of the directory that is to be replaced a second name in the new one. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn link(&self, links: &[String], flush: bool) -> Result<()> {
        if !self.leads {
            return Ok(());
        }
        for inside in links {
            let path = self.staging.partial().join(inside);
            self.make_room(inside)?;
            io::remove(&path)?;
            io::link(&self.staging.destination().join(inside), &path)?;
        }
        if !flush || links.is_empty() {
            return Ok(());
        }
        let base = self.staging.partial();
        rooms::flush(base, links.iter().map(Path::new))?;
        // No manifest lists them as its files, so they must be there before it is.
        io::sync_directory(base)
    }

    /// Discards what a swap has brought into the staging directory, if it was not removed. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn discard_replaced(&self) -> Result<()> {
        // What is being written has journals beside it.
        if self.leads && io::standing(&self.staging.journals())? == Standing::Nothing {
            self.staging.discard()
        } else {
            Ok(())
        }
    }

    /// Discards what was staged if it has come to nothing: a run that takes up leftovers (`resume`)
    /// leaves them to be taken up again. Local.
    ///
    /// # Errors
    /// That of `result`.
    pub fn or_discard<T>(&self, resume: bool, result: Result<T>) -> Result<T> {
        if result.is_err() && !resume {
            self.discard();
        }
        result
    }

    /// Discards what was staged, as well as it can. Local.
    pub fn discard(&self) {
        if self.leads
            && let Err(fault) = self.staging.discard()
        {
            tracing::warn!("{fault}");
        }
    }
}
