//! Processes that are running on this machine.

use rustix::process::Pid;
use std::path::Path;

/// The processes of `program` whose command line names `room`.
pub(crate) fn of(program: &Path, room: &Path) -> Vec<Pid> {
    let room = room.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let number = entry.file_name().to_string_lossy().parse::<i32>();
        let Some(pid) = number.ok().and_then(Pid::from_raw) else {
            continue;
        };
        let exe = std::fs::read_link(entry.path().join("exe"));
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if exe.is_ok_and(|exe| exe == program) && String::from_utf8_lossy(&line).contains(&room) {
            found.push(pid);
        }
    }
    found
}
