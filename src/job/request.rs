//! What a job is asked to do, as a number: all that its result depends on but the source's bytes.

use crate::exchange::{World, agree, broadcast_bytes, decode, encode};
use crate::fault::Result;
use crate::job::spec::{Goal, Job};
use crate::store::io;
use crate::tensor::digest::checksum;

/// The number of what `job` asks for, with strategies of these CRCs. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`] if an adapter can't be looked at.
pub(super) fn request(
    world: &World,
    job: &Job,
    layouts: &[(&'static str, Option<u64>); 2],
) -> Result<u64> {
    let goal = match &job.goal {
        Goal::Write(write) => format!(
            "{:?} {:?} {:?} {:?} {} {:?}",
            write.select,
            write.leftovers,
            write.files,
            write.format,
            write.view.is_some(),
            write.extras,
        ),
        Goal::Convert(convert) => {
            format!(
                "{:?} {:?} {}",
                convert.format, convert.name_map, convert.crc
            )
        }
        Goal::Compare(_) => String::new(),
    };
    let derived = &job.reading.derived;
    let adapter = derived.lora.as_ref().and_then(|lora| lora.file.as_ref());
    // Copies of an adapter may differ in time: the first process's counts.
    let stamp = match adapter {
        Some(adapter) if world.process() == 0 => io::stamp(adapter),
        _ => Ok(None),
    };
    let stamp = agree(world, stamp.and_then(|stamp| encode(&stamp)))?;
    let stamp: Option<(u64, i128)> = match adapter {
        Some(_) => {
            let stamp = broadcast_bytes(world, 0, stamp)?;
            agree(world, decode(&stamp))?
        }
        None => None,
    };
    let text = format!(
        "{} {:?} {layouts:?} {derived:?} {stamp:?} {goal}",
        job.command, job.reading.which
    );
    Ok(checksum(text.as_bytes()))
}
