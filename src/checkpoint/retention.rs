//! Which of a run's own checkpoints stay.

use crate::source::meta::Name;
use std::collections::VecDeque;
use std::time::Duration;

/// The complete checkpoints of a run, oldest first, each with the time since the run's beginning.
#[derive(Debug)]
pub(super) struct Retention {
    /// How many stay; 0: see `window`.
    count_max: usize,
    /// One stays of each such time; zero: all.
    window: Duration,
    kept: VecDeque<(Name, Duration)>,
}

impl Retention {
    pub(super) fn new(count_max: usize, window: Duration) -> Retention {
        Retention {
            count_max,
            window,
            kept: VecDeque::new(),
        }
    }

    /// Whether it asks for the time.
    pub(super) fn by_time(&self) -> bool {
        self.count_max == 0 && !self.window.is_zero()
    }

    /// Takes up a complete checkpoint; gives those that may go for it.
    pub(super) fn add(&mut self, name: Name, at: Duration) -> Vec<Name> {
        let mut gone = Vec::new();
        if self.by_time()
            && let [.., before, last] = &*self.kept.make_contiguous()
            && last.1.saturating_sub(before.1) < self.window
        {
            gone.extend(self.kept.pop_back());
        }
        self.kept.push_back((name, at));
        while self.count_max > 0 && self.kept.len() > self.count_max {
            gone.extend(self.kept.pop_front());
        }
        gone.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(count_max: usize, minutes: u64, times: &[u64]) -> Vec<u64> {
        let minute = |count: u64| Duration::from_secs(60 * count);
        let mut retention = Retention::new(count_max, minute(minutes));
        let mut left: Vec<u64> = Vec::new();
        for time in times {
            let name = Name::parse(&format!("m_rank_0-1_{time}.safetensors")).unwrap();
            let gone = retention.add(name.0, minute(*time));
            left.push(*time);
            left.retain(|time| !gone.iter().any(|name| name.step == *time));
        }
        left
    }

    // proves P121
    #[test]
    fn one_of_each_window_and_the_newest_stay() {
        let times = [1, 3, 5, 11, 12, 19, 20, 32, 33];
        assert_eq!(left(0, 10, &times), [1, 11, 32, 33]);
        assert_eq!(left(0, 0, &times), times);
        assert_eq!(left(2, 10, &times), [32, 33]);
        assert_eq!(left(1, 0, &times), [33]);
    }
}
