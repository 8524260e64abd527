//! What the nodes see of a source: those that share it look at it together, and at each thing once.

use crate::exchange::{Topology, World, all_gather, all_gather_agreed};
use crate::fault::{Fault, Kind, Result};
use crate::source::listed::{Listed, Listing};
use crate::source::listing::{Begun, Room, look_into, put};
use crate::store::io::{self, ReadFile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Nodes that see the same.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The nodes, ascending.
    pub(super) nodes: Vec<u32>,
    /// Their processes, which look in turns.
    members: Vec<u32>,
    /// What they see.
    pub(super) listing: Listing,
}

impl View {
    /// The name of the first of its nodes.
    fn hostname<'a>(&self, topology: &'a Topology) -> &'a str {
        let first = self.nodes.first().map_or(0, |first| *first as usize);
        topology.hostnames.get(first).map_or("", String::as_str)
    }

    /// Which of the view's processes this one is.
    fn place(&self, world: &World) -> Option<usize> {
        let process = world.process();
        self.members.iter().position(|member| *member == process)
    }
}

/// What all nodes see.
#[derive(Clone, Debug)]
pub(super) struct Views(pub(super) Vec<View>);

/// A file of a view: its rank, and what was seen of it.
type Looked = Vec<(u32, Listed)>;

impl Views {
    /// Lists what lies at `path`, of which `begin` tells what there is to list, and `full` what it has
    /// if no rank directory has weights. Collective.
    ///
    /// # Errors
    /// The same on every process: as `begin` and `full`, [`Kind::Io`], [`Kind::Ambiguous`].
    pub(super) fn list(
        world: &World,
        topology: &Topology,
        path: &Path,
        begin: impl Fn() -> Result<Begun>,
        full: impl Fn() -> Result<Listing>,
    ) -> Result<Views> {
        let together = Views::of(world, topology, path)?;
        let listed = together.listed(world, path, &begin, &full)?;
        if listed.are_seen_alike(world, topology, path)? {
            return Ok(listed);
        }
        Views::apart(topology).listed(world, path, &begin, &full)
    }

    /// Who sees the same at `path`, by what tells it from others. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Io`].
    pub(super) fn of(world: &World, topology: &Topology, path: &Path) -> Result<Views> {
        let mine = if topology.leads(world.process()) {
            io::identity(path)
        } else {
            Ok(None)
        };
        let all: Vec<Option<u64>> = all_gather_agreed(world, mine)?;
        let mut views: Vec<View> = Vec::new();
        let mut known: BTreeMap<u64, usize> = BTreeMap::new();
        for view in Views::apart(topology).0 {
            let first = view.members.first().map_or(0, |first| *first as usize);
            let identity = all.get(first).copied().flatten();
            match identity.and_then(|identity| known.get(&identity)) {
                Some(number) => {
                    views[*number].nodes.extend(view.nodes);
                    views[*number].members.extend(view.members);
                }
                None => {
                    known.extend(identity.map(|identity| (identity, views.len())));
                    views.push(view);
                }
            }
        }
        Ok(Views(views))
    }

    /// Each node for itself.
    fn apart(topology: &Topology) -> Views {
        let nodes = (0u32..).zip(&topology.nodes);
        let views = nodes.map(|(node, members)| View {
            nodes: vec![node],
            members: members.clone(),
            listing: Listing::default(),
        });
        Views(views.collect())
    }

    /// Whether this process looks first, for all that share a view with it. Local.
    pub(super) fn leads(&self, world: &World) -> bool {
        let mut views = self.0.iter();
        views.any(|view| view.members.first() == Some(&world.process()))
    }

    /// What the first process of each view has told, which this one shares, with its place among those that
    /// share it, and how many they are. Local.
    pub(super) fn told<'a, T>(
        &self,
        world: &World,
        all: &'a [Option<T>],
    ) -> Vec<(&'a T, usize, usize)> {
        let told = |view: &View| {
            let place = view.place(world)?;
            let first = *view.members.first()? as usize;
            Some((all.get(first)?.as_ref()?, place, view.members.len()))
        };
        self.0.iter().filter_map(told).collect()
    }

    /// The first process of each view tells what there is; rank directories are looked into in turns.
    fn listed(
        mut self,
        world: &World,
        path: &Path,
        begin: impl Fn() -> Result<Begun>,
        full: impl Fn() -> Result<Listing>,
    ) -> Result<Views> {
        let mine = self.leads(world).then(begin).transpose();
        let mut all: Vec<Option<Begun>> = all_gather_agreed(world, mine)?;
        let mut rooms: Vec<Vec<Room>> = Vec::new();
        for view in &mut self.0 {
            let first = view.members.first().map_or(0, |first| *first as usize);
            let begun = all
                .get_mut(first)
                .and_then(Option::take)
                .unwrap_or_default();
            view.listing = begun.listing;
            rooms.push(begun.rooms);
        }
        let mut mine: Vec<(u32, Vec<String>)> = Vec::new();
        let mut looked = Ok(());
        for (view, rooms) in self.0.iter().zip(&rooms) {
            let Some(place) = view.place(world) else {
                continue;
            };
            let own = (0u32..).zip(rooms).skip(place).step_by(view.members.len());
            looked = own
                .map(|(number, room)| (number, look_into(path, room)))
                .try_for_each(|(number, weights)| {
                    mine.push((number, weights?));
                    Ok(())
                });
        }
        let all = all_gather_agreed(world, looked.map(|()| mine))?;
        let mut views = self.0.iter_mut().zip(&rooms);
        // All put the same together.
        views.try_for_each(|(view, rooms)| {
            from(&view.members, &all).try_for_each(|(number, weights)| {
                match rooms.get(*number as usize) {
                    Some(room) => put(&mut view.listing, path, room, weights.clone()),
                    None => Ok(()),
                }
            })
        })?;
        self.without_ranks(world, &rooms, full)
    }

    /// Where no rank directory has weights there may be full weights beside them. Collective.
    fn without_ranks(
        mut self,
        world: &World,
        rooms: &[Vec<Room>],
        full: impl Fn() -> Result<Listing>,
    ) -> Result<Views> {
        let empty = |(view, rooms): &(&mut View, &Vec<Room>)| {
            view.listing.offered.is_empty() && !rooms.is_empty()
        };
        let mut views: Vec<&mut View> = self
            .0
            .iter_mut()
            .zip(rooms)
            .filter(empty)
            .map(|(view, _)| view)
            .collect();
        if views.is_empty() {
            return Ok(self);
        }
        let leads = views.iter().any(|view| view.place(world) == Some(0));
        let mine = leads.then(full).transpose();
        let mut all: Vec<Option<Listing>> = all_gather_agreed(world, mine)?;
        for view in &mut views {
            let first = view.members.first().map_or(0, |first| *first as usize);
            view.listing = all
                .get_mut(first)
                .and_then(Option::take)
                .unwrap_or_default();
        }
        Ok(self)
    }

    /// Puts together what the nodes see.
    ///
    /// # Errors
    /// [`Kind::Differs`] if two nodes see other files of a rank, [`Kind::MissingShard`] if nobody sees any.
    pub(super) fn merged(&self, topology: &Topology, path: &Path) -> Result<Listing> {
        let mut merged = Listing::default();
        let mut first_on: BTreeMap<u32, &View> = BTreeMap::new();
        for view in &self.0 {
            let listing = &view.listing;
            merged.single_file |= listing.single_file;
            if merged.index.is_none() && !listing.ranks.is_empty() {
                merged.index.clone_from(&listing.index);
                merged.indexed.clone_from(&listing.indexed);
            }
            if merged.notes.is_empty() {
                merged.notes.clone_from(&listing.notes);
            }
            if merged.inner.is_none() {
                merged.inner.clone_from(&listing.inner);
            }
            merged.absent.extend(listing.absent.iter().cloned());
            for (rank, files) in &listing.ranks {
                match merged.ranks.get(rank) {
                    None => {
                        merged.ranks.insert(*rank, files.clone());
                        first_on.insert(*rank, view);
                    }
                    Some(other)
                        if other.len() == files.len()
                            && other.iter().zip(files).all(|(a, b)| a.is_like(b)) => {}
                    Some(other) => {
                        let message = format!(
                            "rank {rank} is {} ({} bytes) on {}, {} ({} bytes) on {}",
                            other[0].path,
                            other[0].size,
                            first_on[rank].hostname(topology),
                            files[0].path,
                            files[0].size,
                            view.hostname(topology)
                        );
                        let fault = Fault::new(Kind::Differs, message).rank(*rank);
                        return Err(fault.file(path.display().to_string()));
                    }
                }
            }
        }
        if !merged.absent.is_empty() {
            let seen = self.0.iter().flat_map(|view| view.listing.ranks.values());
            let seen: BTreeSet<&str> = seen.flatten().map(|file| file.path.as_str()).collect();
            merged
                .absent
                .retain(|(_, path)| !seen.contains(path.as_str()));
        }
        if merged.ranks.is_empty() {
            let fault = Fault::new(Kind::MissingShard, "no process finds weight files here");
            return Err(fault.file(path.display().to_string()).hint(
                "expected rank_<n>/ directories, full weights, or one .safetensors or .ckpt file",
            ));
        }
        Ok(merged)
    }

    /// The ranks whose files several nodes see, and all of these the same ones.
    pub(super) fn common(&self) -> BTreeSet<u32> {
        let mut seen: BTreeMap<u32, (&Vec<Listed>, usize)> = BTreeMap::new();
        let mut copied = BTreeSet::new();
        for view in &self.0 {
            for (rank, files) in &view.listing.ranks {
                let (first, nodes) = seen.entry(*rank).or_insert((files, 0));
                *nodes += view.nodes.len();
                if *first != files {
                    copied.insert(*rank);
                }
            }
        }
        seen.retain(|rank, (_, nodes)| *nodes > 1 && !copied.contains(rank));
        seen.into_keys().collect()
    }

    /// The ranks that each of `nodes` nodes sees.
    pub(super) fn seen(&self, nodes: usize) -> Vec<Arc<BTreeSet<u32>>> {
        let mut seen = vec![Arc::default(); nodes];
        for view in &self.0 {
            let ranks: Arc<BTreeSet<u32>> = Arc::new(view.listing.ranks.keys().copied().collect());
            for node in &view.nodes {
                if let Some(place) = seen.get_mut(*node as usize) {
                    *place = Arc::clone(&ranks);
                }
            }
        }
        seen
    }

    /// Whether the nodes of each view see the same files, by the first and the last of them. Collective.
    fn are_seen_alike(&self, world: &World, topology: &Topology, path: &Path) -> Result<bool> {
        if self.0.iter().all(|view| view.nodes.len() < 2) {
            return Ok(true);
        }
        let mut mine: Option<Vec<Option<(u64, u64)>>> = None;
        for view in self.0.iter().filter(|view| view.place(world).is_some()) {
            let offered = view.listing.offered.values().flatten().map(String::as_str);
            let listed = view.listing.ranks.values().flatten();
            let mut files = offered.chain(listed.map(|file| file.path.as_str()));
            let first = files.next();
            if topology.leads(world.process()) && view.nodes.len() > 1 {
                let two = first.into_iter().chain(files.last());
                // What can't be seen is no reason to fail here: others may see it.
                mine = Some(
                    two.map(|file| ReadFile::glance(&path.join(file)).ok())
                        .collect(),
                );
            }
        }
        let all = all_gather(world, &mine)?;
        Ok(self.0.iter().all(|view| {
            let mut told = view
                .members
                .iter()
                .filter_map(|member| all.get(*member as usize)?.as_ref());
            let first = told.next();
            told.all(|other| Some(other) == first)
        }))
    }

    /// What is seen of `files`, by rank. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Io`].
    pub(super) fn look(
        &self,
        world: &World,
        path: &Path,
        files: &BTreeMap<u32, String>,
    ) -> Result<Views> {
        let mut mine: Looked = Vec::new();
        let mut looked = Ok(());
        for view in &self.0 {
            let Some(place) = view.place(world) else {
                continue;
            };
            let own = view.seen(files).skip(place).step_by(view.members.len());
            looked = own
                .map(|(rank, file)| (rank, Listed::new(path, file.clone())))
                .try_for_each(|(rank, file)| {
                    mine.push((rank, file?));
                    Ok(())
                });
        }
        let all = all_gather_agreed(world, looked.map(|()| mine))?;
        let views = self.0.iter().map(|view| View {
            listing: Listing {
                single_file: view.listing.single_file,
                notes: view.listing.notes.clone(),
                ranks: from(&view.members, &all)
                    .map(|(rank, file)| (*rank, vec![file.clone()]))
                    .collect(),
                ..Listing::default()
            },
            nodes: view.nodes.clone(),
            members: view.members.clone(),
        });
        Ok(Views(views.collect()))
    }
}

impl View {
    /// Those of `files` that are seen here.
    fn seen<'a>(
        &'a self,
        files: &'a BTreeMap<u32, String>,
    ) -> impl Iterator<Item = (u32, &'a String)> {
        let here = files.iter().filter(|(rank, file)| {
            let offered = self.listing.offered.get(rank);
            offered.is_some_and(|offered| offered.contains(file))
        });
        here.map(|(rank, file)| (*rank, file))
    }
}

/// What the processes `members` have told.
fn from<'a, T>(members: &'a [u32], all: &'a [Vec<T>]) -> impl Iterator<Item = &'a T> {
    let of_each = members
        .iter()
        .filter_map(|member| all.get(*member as usize));
    of_each.flatten()
}
