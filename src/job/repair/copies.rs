//! Where equal copies of shards lie: a name, a length and a CRC tell them.

use crate::job::repair::cuts::Cuts;
use crate::job::repair::parts::{Key, Part, Ranges, length};
use crate::job::repair::survey::Holding;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Manifest};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A directory that copies are taken from.
pub(super) struct Donor<'m> {
    /// Where it is.
    pub(super) directory: &'m Path,
    /// What it should hold.
    pub(super) manifest: &'m Manifest,
    /// What people are told of it: before a file's path, if it has files that they know.
    pub(super) shown: String,
    /// Whether it has.
    pub(super) lasts: bool,
}

/// A place where a copy should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which of the donors.
    pub(super) donor: usize,
    /// Which of its files.
    pub(super) file: usize,
    /// Structure and position in it; none for the whole file.
    shard: Option<(usize, usize)>,
}

/// All that copies can be taken from. The first donor is the damaged directory itself.
pub(super) struct Copies<'m> {
    pub(super) donors: Vec<Donor<'m>>,
    /// Numbers of the first donor's damaged files.
    pub(super) suspects: &'m [usize],
    /// What the first donor tells of its files' parts by itself.
    pub(super) told: Option<&'m Cuts>,
    places: HashMap<Key<'m>, Vec<Place>>,
}

impl<'m> Copies<'m> {
    /// Finds the places of all `needed` shards: by the manifests, except in damaged files, where only
    /// what was found (`holdings`) counts. Local.
    pub(super) fn find(
        donors: Vec<Donor<'m>>,
        suspects: &'m [usize],
        needed: &HashSet<Key<'m>>,
        holdings: &[Holding],
    ) -> Self {
        let damaged: HashSet<usize> = suspects.iter().copied().collect();
        let mut copies = Copies {
            donors,
            suspects,
            told: None,
            places: needed.iter().map(|key| (*key, Vec::new())).collect(),
        };
        for donor in 0..copies.donors.len() {
            let manifest = copies.donors[donor].manifest;
            for (file, record) in manifest.files.iter().enumerate() {
                if donor > 0 || !damaged.contains(&file) {
                    copies.add(donor, file, record, manifest);
                }
            }
            if donor == 0 {
                for holding in holdings {
                    copies.hold(holding, manifest);
                }
            }
        }
        copies
    }

    fn add(&mut self, donor: usize, file: usize, record: &FileRecord, manifest: &'m Manifest) {
        let Some(structure) = record.structure else {
            let place = Place {
                donor,
                file,
                shard: None,
            };
            return self.put(("", record.bytes, record.crc64.0), place);
        };
        let shards = manifest.placed(record).iter().zip(&record.shards);
        for (position, ((name, ranges), crc)) in shards.enumerate() {
            let place = Place {
                donor,
                file,
                shard: Some((structure, position)),
            };
            self.put((name, length(ranges), crc.0), place);
        }
    }

    fn hold(&mut self, holding: &Holding, manifest: &'m Manifest) {
        let at = |shard| Place {
            donor: 0,
            file: holding.file,
            shard,
        };
        let Some((structure, shards)) = &holding.shards else {
            return self.put(("", holding.whole.0, holding.whole.1), at(None));
        };
        for (position, crc) in shards {
            let placed = manifest.structures.get(*structure);
            if let Some((name, ranges)) = placed.and_then(|placed| placed.get(*position)) {
                let key = (name.as_str(), length(ranges), *crc);
                self.put(key, at(Some((*structure, *position))));
            }
        }
    }

    fn put(&mut self, key: Key<'m>, place: Place) {
        if let Some(places) = self.places.get_mut(&key) {
            places.push(place);
        }
    }

    /// Where copies of a part of the damaged file `number` may be, the likeliest first: in the file
    /// itself, in good files beside it, in damaged ones, with the other donors. Local.
    pub(super) fn of(&self, number: usize, part: &Part<'_>) -> Vec<Place> {
        let mut places = self.places.get(&part.key()).cloned().unwrap_or_default();
        places.sort_by_key(|place| {
            let own = place.donor == 0 && place.file == number;
            (!own, place.donor)
        });
        places
    }

    /// Whether `place` is where the damaged file `number` itself should have the copy. Local.
    pub(super) fn is_own(&self, number: usize, place: Place) -> bool {
        let structure = self.record(0, number).and_then(|record| record.structure);
        let shard = place.shard.map(|(structure, _)| structure);
        place.donor == 0 && place.file == number && shard == structure
    }

    /// The record of a donor's file.
    pub(super) fn record(&self, donor: usize, file: usize) -> Option<&'m FileRecord> {
        self.donors.get(donor)?.manifest.files.get(file)
    }

    /// Path of a donor's file.
    pub(super) fn path(&self, donor: usize, file: usize) -> PathBuf {
        let directory = self.donors.get(donor).map(|donor| donor.directory);
        let inside = self.record(donor, file).map(|record| record.path.as_str());
        directory
            .unwrap_or(Path::new(""))
            .join(inside.unwrap_or_default())
    }

    /// What people are told of a donor's file.
    pub(super) fn shown(&self, donor: usize, file: usize) -> String {
        let record = self.record(donor, file);
        let inside = record.map_or("", |record| record.path.as_str());
        match self.donors.get(donor) {
            Some(donor) if donor.lasts => format!("{}{inside}", donor.shown),
            Some(donor) => donor.shown.clone(),
            None => String::new(),
        }
    }

    /// Opens the file at `place`, with the ranges of the copy in it; none if they can't be there. Local.
    pub(super) fn open(&self, place: Place) -> Option<(ReadFile, Ranges<'m>)> {
        let record = self.record(place.donor, place.file)?;
        let file = ReadFile::open(&self.path(place.donor, place.file)).ok()?;
        let ranges: Ranges<'m> = match place.shard {
            Some((structure, position)) => {
                let manifest = self.donors.get(place.donor)?.manifest;
                Cow::Borrowed(&manifest.structures.get(structure)?.get(position)?.1)
            }
            // A file in another's place has another length than the record of that place says.
            None if place.donor == 0 && self.suspects.contains(&place.file) => {
                Cow::Owned(vec![(0, file.size())])
            }
            None => Cow::Owned(vec![(0, record.bytes)]),
        };
        let fits = ranges.iter().all(|(_, end)| *end <= file.size());
        fits.then_some((file, ranges))
    }
}
