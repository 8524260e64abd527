//! `shardloom convert`.

use crate::cli::args::{ConvertArgs, SyncMode};
use crate::cli::name_map::name_map;
use crate::destination::Writing;
use crate::fault::{Fault, Kind, Result};
use crate::job::{Convert, Goal, Job};
use crate::source::{Reading, Which};
use crate::store::Format;

/// What the arguments ask for.
///
/// # Errors
/// [`Kind::Usage`] for a CRC on a format that has none.
pub(super) fn convert(args: &ConvertArgs) -> Result<Job> {
    if args.crc && args.to != Format::Ckpt {
        return Err(Fault::new(
            Kind::Usage,
            "--crc is for .ckpt files: --to ckpt",
        ));
    }
    let format = match args.to {
        Format::Ckpt => Format::Safetensors,
        Format::Safetensors => Format::Ckpt,
    };
    Ok(Job {
        command: "convert",
        reading: Reading {
            path: args.src.clone(),
            which: Which::Every {
                format,
                contains: args.file_name_contains.clone(),
                check_crc: args.check_crc,
            },
            ..Reading::default()
        },
        goal: Goal::Convert(Box::new(Convert {
            format: args.to,
            name_map: name_map(args.name_map.as_deref())?,
            crc: args.crc,
            writing: Writing {
                path: args.dst.clone(),
                overwrite: args.overwrite,
                resume: args.resume,
                unflushed: args.sync == SyncMode::None,
                ..Writing::default()
            },
        })),
        moving: args.moving.moving(None)?,
        dry_run: false,
    })
}
