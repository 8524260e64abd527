//! One parser, which `SHARDLOOM_PARSER` names, or whole jobs, and what must hold of whatever they take.

#![no_main]

#[path = "../support/parsers.rs"]
mod parsers;

#[path = "../support/whole_jobs.rs"]
#[allow(dead_code, reason = "its good inputs are for the program that tries the kept ones")]
mod whole_jobs;

use libfuzzer_sys::fuzz_target;
use parsers::{PARSERS, Parser, Tried};
use shardloom::World;
use std::sync::OnceLock;

/// Whole jobs, in one process without MPI.
fn jobs(bytes: &[u8]) -> Tried {
    thread_local! {
        // It never ends: the fuzzer leaves by itself.
        static WORLD: &'static World = Box::leak(Box::new(World::start().expect("a world")));
        static ROOM: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    }
    WORLD.with(|world| ROOM.with(|room| whole_jobs::job(world, room.path(), bytes)))
}

const JOBS: Parser = Parser {
    name: "jobs",
    parse: jobs,
};

fn chosen() -> &'static Parser {
    static CHOSEN: OnceLock<&Parser> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("SHARDLOOM_PARSER").unwrap_or_default();
        let mut all = PARSERS.iter().chain([&JOBS]);
        let found = all.find(|parser| parser.name == name);
        found.unwrap_or_else(|| {
            let names: Vec<&str> = PARSERS.iter().chain([&JOBS]).map(|parser| parser.name).collect();
            panic!("SHARDLOOM_PARSER is one of {}", names.join(", "))
        })
    })
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(wrong) = (chosen().parse)(bytes) {
        panic!("{}: {wrong}", chosen().name);
    }
});
