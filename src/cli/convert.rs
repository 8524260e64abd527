//! `shardloom convert`.

use crate::cli::args::{ConvertArgs, SyncMode};
use crate::cli::name_map::name_map;
use crate::engine::convert::Conversion;
use crate::engine::job::Options;
use crate::fault::{Fault, Kind, Result};
use crate::store::Format;

/// What the arguments ask for.
///
/// # Errors
/// [`Kind::Usage`] for a CRC on a format that has none.
pub(super) fn conversion(args: &ConvertArgs) -> Result<Conversion> {
    if args.crc && args.to != Format::Ckpt {
        return Err(Fault::new(
            Kind::Usage,
            "--crc is for .ckpt files: --to ckpt",
        ));
    }
    Ok(Conversion {
        source: args.src.clone(),
        destination: args.dst.clone(),
        format: args.to,
        name_map: name_map(args.name_map.as_deref())?,
        file_name_contains: args.file_name_contains.clone(),
        check_crc: args.check_crc,
        crc: args.crc,
        options: Options {
            overwrite: args.overwrite,
            resume: args.resume,
            flush: args.sync == SyncMode::Commit,
            ..args.moving.options()
        },
    })
}
