//! Two runs that start at about the same time, either of which stands still for a while.

use super::sample::{Sample, image};
use super::{RESHARD, end, sample, send, start, words};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Image = Vec<(PathBuf, Vec<u8>)>;

/// Numbers that look random, the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What two runs do.
struct Race {
    lines: [String; 2],
    /// The directory that both write.
    at: &'static str,
    in_place: bool,
}

fn weights(directory: &Path) -> Option<Image> {
    let files = directory.exists().then(|| image(directory))?.into_iter();
    Some(
        files
            .filter(|(name, _)| !name.ends_with("shardloom.json"))
            .collect(),
    )
}

fn races() -> [Race; 4] {
    let race = |one: &str, other: &str, at, in_place| Race {
        lines: [one.to_owned(), other.to_owned()],
        at,
        in_place,
    };
    let unify = "unify --src @src --src-strategy @four.ckpt --dst @out --overwrite --memory 2MiB";
    let replaces = format!("{RESHARD} --overwrite");
    let resumes = format!("{RESHARD} --resume");
    let in_place = "reshard --src @work --src-strategy @four.ckpt --dst-strategy @two.ckpt \
                    --in-place --memory 2MiB --threads 1";
    [
        race(RESHARD, RESHARD, "out", false),
        race(&replaces, unify, "out", false),
        race(&resumes, &resumes, "out", false),
        race(in_place, in_place, "work", true),
    ]
}

impl Race {
    fn set_up(&self, sample: &Sample) {
        let _ = std::fs::remove_dir_all(sample.path(self.at));
        if self.in_place {
            for (name, bytes) in image(&sample.path("src")) {
                super::tensors::write_bytes(&sample.path(self.at).join(name), &bytes);
            }
        }
    }

    /// Runs it once; gives how many runs were refused.
    fn run(&self, sample: &Sample, due: &[Image; 2], dice: &mut Dice, offset: u64) -> u32 {
        self.set_up(sample);
        let before = weights(&sample.path(self.at));
        let one = start(sample, &self.lines[0]);
        std::thread::sleep(Duration::from_millis(dice.below(offset)));
        let other = start(sample, &self.lines[1]);
        std::thread::sleep(Duration::from_millis(dice.below(offset)));
        let still = if dice.below(2) == 0 { &one } else { &other };
        send(still, Signal::STOP);
        std::thread::sleep(Duration::from_millis(dice.below(offset)));
        send(still, Signal::CONT);
        let outputs = [end(one), end(other)];
        let found = weights(&sample.path(self.at));
        let told = outputs.each_ref().map(words);
        let well = outputs.each_ref().map(|output| output.status.success());
        let mut refused = 0;
        for (output, told) in outputs.iter().zip(&told) {
            if output.status.success() {
                continue;
            }
            assert_eq!(output.status.code(), Some(1), "{told}");
            let there = told.contains("another run is writing here: ");
            refused += u32::from(there);
            assert!(there || told.contains("exists and is not empty"), "{told}");
        }
        match well {
            [true, true] => assert!(
                due.iter().any(|due| found.as_ref() == Some(due)),
                "{told:?}"
            ),
            [true, false] => assert!(found.as_ref() == Some(&due[0]), "{told:?}"),
            [false, true] => assert!(found.as_ref() == Some(&due[1]), "{told:?}"),
            [false, false] => unreachable!("none won: {told:?}"),
        }
        assert!(before.is_none() || found.is_some());
        super::nothing_hidden(sample.room.path());
        refused
    }
}

#[test]
fn races_leave_what_one_of_the_runs_makes() {
    let count = std::env::var("SHARDLOOM_RACES").ok();
    let count: Option<usize> = count.and_then(|text| text.parse().ok());
    let seed = std::env::var("SHARDLOOM_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or(7);
    println!("SHARDLOOM_SEED={seed}");
    let mut dice = Dice(seed);
    let begun = Instant::now();
    let sample = sample(3);
    let races = races();
    let due = races.each_ref().map(|race| {
        race.lines.each_ref().map(|line| {
            race.set_up(&sample);
            let alone = end(start(&sample, line));
            assert!(alone.status.success(), "{}", words(&alone));
            weights(&sample.path(race.at)).expect("a result")
        })
    });
    let source = image(&sample.path("src"));
    let mut refused = 0;
    let count_min = count.unwrap_or(20);
    for number in 0.. {
        // Runs that are quick may miss each other for a while.
        if number >= count_min && (refused > 0 || number >= 5 * count_min) {
            break;
        }
        let (race, due) = (&races[number % 4], &due[number % 4]);
        let offset = if count.is_some() && number % 3 == 0 {
            1500
        } else {
            250
        };
        refused += race.run(&sample, due, &mut dice, offset);
    }
    assert!(
        source == image(&sample.path("src")),
        "the source has changed"
    );
    assert!(refused > 0, "no two runs ever met");
    println!("{refused} runs refused in {:?}", begun.elapsed());
}
