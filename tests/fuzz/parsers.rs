//! One parser, which `SHARDLOOM_PARSER` names, and what must hold of whatever it takes.

#![no_main]

#[path = "../support/parsers.rs"]
mod parsers;

use libfuzzer_sys::fuzz_target;
use parsers::{PARSERS, Parser};
use std::sync::OnceLock;

fn chosen() -> &'static Parser {
    static CHOSEN: OnceLock<&Parser> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("SHARDLOOM_PARSER").unwrap_or_default();
        let found = PARSERS.iter().find(|parser| parser.name == name);
        found.unwrap_or_else(|| {
            let names: Vec<&str> = PARSERS.iter().map(|parser| parser.name).collect();
            panic!("SHARDLOOM_PARSER is one of {}", names.join(", "))
        })
    })
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(wrong) = (chosen().parse)(bytes) {
        panic!("{}: {wrong}", chosen().name);
    }
});
