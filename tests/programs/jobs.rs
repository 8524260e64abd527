//! Tries whole jobs, and those with the inputs of a file, as `tests/corpus/jobs` is: each after its length in 4 bytes,
//! little end first. Good ones must be taken. Prints how many inputs there were and how many were taken.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "../support/whole_jobs.rs"]
mod whole_jobs;

use shardloom::World;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(file), Some(room)) = (arguments.next(), arguments.next()) else {
        eprintln!("jobs_check FILE DIRECTORY");
        return ExitCode::from(2);
    };
    let packed = std::fs::read(file).expect("the inputs");
    let world = World::start().expect("a world");
    let good = whole_jobs::usual();
    let mut inputs: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    let mut rest = &packed[..];
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).expect("a length");
        let (input, more) = more.split_at(length);
        inputs.push(input);
        rest = more;
    }
    let (mut taken, mut wrong) = (0, 0);
    for (number, input) in inputs.iter().enumerate() {
        match whole_jobs::job(&world, room.as_ref(), input) {
            Ok(true) => taken += 1,
            Ok(false) if number >= good.len() => {}
            Ok(false) => {
                wrong += 1;
                eprintln!("input {number}: is good, and was refused");
            }
            Err(error) => {
                wrong += 1;
                eprintln!("input {number}: {error}");
            }
        }
    }
    println!("{} inputs, {taken} taken", inputs.len());
    world.finish().expect("it ends");
    ExitCode::from(u8::from(wrong > 0))
}
