//! Who holds a lock: a process, named so that others can find out whether it lives.

use crate::fault::{Fault, Kind, Result};
use crate::host::identity;
use crate::store::io;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// A word that no other run has: hexadecimal digits.
    pub(super) token: String,
    /// What it does.
    command: String,
    /// Name of its machine.
    host: String,
    /// Its number there.
    process: u32,
    /// When it began, in seconds since 1970.
    since: u64,
    /// When its process began, in the system's own count since the machine started.
    born: u64,
    /// This start of the machine.
    boot: String,
    /// Where its number is valid: containers have numbers of their own.
    numbers: String,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs, or stands still.
    Lives,
    /// It is gone.
    Gone,
}

impl Holder {
    /// This process.
    pub(super) fn of_this_process(command: &str, host: &str) -> Holder {
        let process = identity::process();
        let numbers = rustix::fs::readlink("/proc/self/ns/pid", Vec::new());
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Holder {
            token: token(),
            command: command.to_owned(),
            host: host.to_owned(),
            process,
            since: now.as_secs(),
            born: stat(process).map_or(0, |(_, born)| born),
            boot: identity::boot(io::boot()),
            numbers: numbers
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Fault::new(Kind::Internal, format!("can't write JSON: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The holder in a lock's file; none in one that is cut short, or not ours.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Holder> {
        let holder: Holder = serde_json::from_slice(bytes).ok()?;
        let plain = |c: char| c.is_ascii_hexdigit();
        let named = !holder.token.is_empty() && holder.token.len() <= 64;
        (named && holder.token.chars().all(plain)).then_some(holder)
    }

    /// Whether it lives, as far as that can be told by `asks`, which is this process; none if the two
    /// don't share a machine.
    pub(super) fn life(&self, asks: &Holder) -> Option<Life> {
        let known = !self.boot.is_empty() && !self.numbers.is_empty();
        if !known || self.boot != asks.boot || self.numbers != asks.numbers {
            return None;
        }
        let gone = match stat(self.process) {
            Some((state, born)) => matches!(state, 'Z' | 'X') || born != self.born,
            // Others' processes may be hidden.
            None => {
                let pid = i32::try_from(self.process).ok().and_then(Pid::from_raw);
                pid.is_none_or(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
            }
        };
        Some(if gone { Life::Gone } else { Life::Lives })
    }
}

/// A word that no other run has, on any machine: 32 hexadecimal digits.
#[must_use]
pub fn token() -> String {
    format!("{:016x}{:016x}", identity::random(), identity::random())
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, process, host) = (&self.command, self.process, &self.host);
        let since = date(self.since);
        write!(out, "{command}, process {process} on {host}, since {since}")
    }
}

/// State and time of birth of a process, if it can be seen.
fn stat(process: u32) -> Option<(char, u64)> {
    if let Some(lives) = identity::lives(process) {
        return lives.then_some(('S', 0));
    }
    let text = io::read_text(&format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A time since 1970 as people write it: `2026-11-27 03:32:08 UTC`.
#[must_use]
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_time() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_764_177_845), "2025-11-26 17:24:05 UTC");
    }

    #[test]
    fn knows_the_living_from_the_gone() {
        let me = Holder::of_this_process("test", "here");
        assert_eq!(Holder::of_bytes(&me.to_bytes().unwrap()), Some(me.clone()));
        assert_eq!(me.life(&me), Some(Life::Lives));
        let reused = Holder {
            born: 1,
            ..me.clone()
        };
        assert_eq!(reused.life(&me), Some(Life::Gone));
        let elsewhere = Holder {
            boot: "another".into(),
            ..me.clone()
        };
        assert_eq!(elsewhere.life(&me), None);
        let contained = Holder {
            numbers: "pid:[1]".into(),
            ..me.clone()
        };
        assert_eq!(contained.life(&me), None);
    }
}
