//! Whether files of the source that get a second name hold what the result's manifest is to say of them.
//!
//! Of what a source has several times one copy is read; a file that is linked is one of its own.

use crate::catalog::ShardFile;
use crate::destination::{Destination, Linked, Shown};
use crate::exchange::{World, agree, exchange_values};
use crate::fault::{Fault, Kind, Result};
use crate::job::planned::Planned;
use crate::job::verify::reader::Reader;
use crate::store::io::ReadFile;
use std::collections::HashMap;

/// Of a linked file: where it is linked to, where it is from, and of each tensor its CRC.
type Found = (String, String, Vec<(String, u64)>);

/// Reads the linked files, the work shared by the processes of a site, and compares them. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Corrupt`] naming tensor and file, [`Kind::Io`].
pub(super) fn check(
    world: &World,
    destination: &Destination,
    planned: &Planned,
    shown: &Shown<'_>,
) -> Result<()> {
    let site = &destination.site;
    let own = destination.linked.iter();
    let own = own.skip(site.index as usize);
    let own = own.step_by((site.processes as usize).max(1));
    let mut reader = Reader::default();
    let found = own.filter_map(|((rank, number), linked)| {
        let files = planned.catalog.ranks.get(rank)?;
        let file = files.get(*number as usize)?;
        Some(read(linked, file, &mut reader))
    });
    let found = found.map(|found| found.map(|found| (destination.leader, found)));
    let found: Vec<Found> = exchange_values(world, found.collect())?;
    let mut due: HashMap<(&str, &str), u64> = HashMap::new();
    for (structures, files) in shown.files {
        for file in files {
            let placed = file.structure.and_then(|number| structures.get(number));
            for ((name, _), crc) in placed.into_iter().flatten().zip(&file.shards) {
                due.insert((&file.path, name), crc.0);
            }
        }
    }
    let wrong = found.iter().find_map(|(to, from, shards)| {
        let mut shards = shards.iter();
        let other =
            |(name, crc): &&(String, u64)| due.get(&(&**to, &**name)).is_some_and(|due| due != crc);
        shards.find(other).map(|(name, _)| (from, name))
    });
    let checked = wrong.map_or(Ok(()), |(from, name)| {
        let message = "its bytes are not those of the copy that was read, so the file can't be shared";
        Err(Fault::new(Kind::Corrupt, message)
            .tensor(name.as_str())
            .file(from.as_str())
            .hint(
                "nothing was put in place. One of the copies is damaged: --verify all says where they differ first, \
                 `verify` on the source which is right, if it has a manifest",
            ))
    });
    agree(world, checked)
}

/// Reads a linked file. Local.
fn read(linked: &Linked, file: &ShardFile, reader: &mut Reader) -> Result<Found> {
    let open = ReadFile::open(&linked.from)?;
    let mut shards = Vec::new();
    for entry in &file.schema.entries {
        shards.push((entry.name.to_string(), reader.crc(&open, entry)?));
    }
    let from = linked.from.display().to_string();
    Ok((file.path.clone(), from, shards))
}
