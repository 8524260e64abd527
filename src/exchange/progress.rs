//! Process 0 learns how far all processes are, without anybody waiting.

use super::backend::Flight;
use super::control::all_reduce;
use super::operation::Operation;
use super::pause::{Patience, Pause};
use super::world::World;
use crate::fault::{Fault, Kind, Result};
use crate::host::clock;
use std::time::{Duration, Instant};

/// Tags of progress reports: one for each [`Progress`], so that late reports don't count later.
const TAG_FIRST: i32 = 16;
const TAGS: i32 = 8192;

/// Reports of bytes done, in small messages to process 0: at most one every max(0.25 s, P / 2000 s)
/// from each of P processes, so process 0 gets at most 2000 a second.
pub struct Progress<'w> {
    world: &'w World,
    tag: i32,
    interval: Duration,
    last: Option<Instant>,
    done_bytes: u64,
    told_bytes: u64,
    messages_sent: u64,
    under_way: Option<Flight<Vec<u8>>>,
    heard_bytes: u64,
    messages_heard: u64,
}

impl<'w> Progress<'w> {
    /// *Collective.* Begins at 0 bytes. Doesn't wait for the others.
    pub fn start(world: &'w World) -> Self {
        let number = world.reports.get();
        world.reports.set((number + 1) % TAGS);
        Progress {
            world,
            tag: TAG_FIRST + number,
            interval: Duration::from_millis((u64::from(world.size()) / 2).max(250)),
            last: None,
            done_bytes: 0,
            told_bytes: 0,
            messages_sent: 0,
            under_way: None,
            heard_bytes: 0,
            messages_heard: 0,
        }
    }

    /// *Local.* This process has done `done_bytes` so far. Tells process 0 if it is time; never
    /// waits.
    pub fn report(&mut self, done_bytes: u64) -> Result<()> {
        self.done_bytes = done_bytes.max(self.done_bytes);
        if self.world.process() == 0 || self.done_bytes == self.told_bytes {
            return Ok(());
        }
        if self
            .last
            .is_some_and(|last| clock::since(last) < self.interval)
            || !self.is_told()?
        {
            return Ok(());
        }
        let news = (self.done_bytes - self.told_bytes).to_le_bytes().to_vec();
        self.under_way = Some(self.world.signal.send(0, self.tag, news, false)?);
        self.told_bytes = self.done_bytes;
        self.messages_sent += 1;
        self.last = Some(clock::now());
        Ok(())
    }

    /// *Local.* On process 0 the bytes that all have done, as far as it has heard; elsewhere those
    /// of this process.
    pub fn total(&mut self) -> Result<u64> {
        while self.hear()? {}
        Ok(self.done_bytes.saturating_add(self.heard_bytes))
    }

    /// *Collective.* The bytes that all have done, exactly, on all processes.
    pub fn finish(mut self) -> Result<u64> {
        let mut sums = [self.done_bytes, self.messages_sent];
        all_reduce(self.world, &mut sums, Operation::Sum)?;
        if self.world.process() == 0 {
            let mut pause = Pause::new(Patience::Long);
            while self.messages_heard < sums[1] {
                if !self.hear()? {
                    pause.rest();
                }
            }
        }
        if let Some(last) = self.under_way.take() {
            last.wait(Patience::Long)?;
        }
        Ok(sums[0])
    }

    /// *Local.* Whether process 0 has been told all that it was sent.
    fn is_told(&mut self) -> Result<bool> {
        self.under_way.as_mut().map_or(Ok(true), Flight::test)
    }

    /// *Local.* Receives one report, if there is one.
    fn hear(&mut self) -> Result<bool> {
        if self.world.process() != 0 {
            return Ok(false);
        }
        let Some(message) = self.world.signal.receive_any(self.tag)? else {
            return Ok(false);
        };
        let news = message
            .bytes
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| {
                Fault::new(
                    Kind::Internal,
                    format!("process {} reports no number", message.source),
                )
            })?;
        self.heard_bytes = self.heard_bytes.saturating_add(news);
        self.messages_heard += 1;
        Ok(true)
    }
}
