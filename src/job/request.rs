//! What a job is asked to do, as a number: all that its result depends on but the source itself.

use crate::catalog::SmallFile;
use crate::job::spec::{Goal, Job};
use crate::tensor::digest::checksum;

/// The small files that are asked for: names and digests.
fn small(files: &[SmallFile]) -> Vec<(&str, u64)> {
    let numbered = files
        .iter()
        .map(|file| (&*file.path, checksum(&file.bytes)));
    numbered.collect()
}

/// The number of what `job` asks for, with strategies of these CRCs. Local, the same on every process.
pub(super) fn request(job: &Job, layouts: &[(&'static str, Option<u64>); 2]) -> u64 {
    let goal = match &job.goal {
        Goal::Write(write) => format!(
            "{:?} {:?} {:?} {:?} {} {:?} {:?}",
            write.select,
            write.leftovers,
            write.files,
            write.format,
            write.view.is_some(),
            small(&write.extras),
            write.step,
        ),
        Goal::Convert(convert) => {
            format!(
                "{:?} {:?} {}",
                convert.format, convert.name_map, convert.crc
            )
        }
        Goal::Compare(_) => String::new(),
    };
    let (which, derived) = (&job.reading.which, &job.reading.derived);
    let text = format!("{} {which:?} {layouts:?} {derived:?} {goal}", job.command);
    checksum(text.as_bytes())
}
