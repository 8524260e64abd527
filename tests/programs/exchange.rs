//! Checks the exchange from inside an MPI job: `exchange_check CHECK`, on any number of processes.
//!
//! It ends with 0 if what the check promises holds on all processes. `tests/mpi.rs` runs it.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)] // a failed check speaks

use shardloom::exchange::{
    Alarm, DataRound, Operation, Packed, Progress, Topology, Traffic, World, agree,
    all_gather_bytes, all_reduce, barrier, broadcast_bytes, exchange_bytes,
};
use shardloom::fault::{Fault, Kind, Result};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let check = std::env::args().nth(1).unwrap_or_default();
    let mut world = World::start().expect("MPI starts");
    let result = match check.as_str() {
        "nothing" => Ok(()),
        "messages" => messages(&mut world),
        "broadcast" => broadcast(&mut world),
        "gather" => gather(&mut world),
        "reduce" => reduce(&mut world),
        "rounds" => rounds(&world),
        "round_limits" => round_limits(&world),
        "topology" => topology(&world),
        "agree" => agreement(&world),
        "alarm" => alarm(&world),
        "progress" => progress(&world),
        "fail" => fail(&world),
        "abandon" => abandon(&world),
        "panic" => die(&world, |_| panic!("a promise was broken")),
        "panic_in_thread" => die(&world, |_| {
            let _ = std::thread::spawn(|| panic!("a promise was broken")).join();
        }),
        "abort" => die(&world, |world| world.abort(7)),
        "kill" => die(&world, |_| kill_myself()),
        "mpi_fault" => die(&world, |world| {
            let _ = agree::<()>(world, Err(Fault::new(Kind::Mpi, "the network is gone")));
        }),
        "leave" if world.process() == world.size() - 1 => return ExitCode::FAILURE,
        "leave" => die(&world, |_| ()),
        other => panic!("there is no check {other:?}"),
    };
    if let Err(fault) = &result {
        // The others may still be in the middle of a check.
        if fault.kind == Kind::Internal {
            eprintln!("process {}: {fault}", world.process());
            world.abort(1);
        }
    }
    let result = agree(&world, result);
    if let (Err(fault), 0) = (&result, world.process()) {
        eprintln!("error: {fault} ({} failed)", world.failed_count());
    }
    world.finish().expect("MPI ends");
    ExitCode::from(if result.is_ok() { 0 } else { 3 })
}

/// Numbers that every process can compute: the n-th for a pair of processes.
fn number(n: u64, from: u32, to: u32) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(from) << 32) ^ u64::from(to);
    for _ in 0..3 {
        x = (x ^ (x >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }
    x ^ (x >> 32)
}

/// The bytes that `from` sends `to` in round `n`: up to `most` of them, often none.
fn bytes(n: u64, from: u32, to: u32, most: u64) -> Vec<u8> {
    let draw = number(n, from, to);
    let length = if draw % 3 == 0 {
        0
    } else {
        draw / 3 % (most + 1)
    };
    (0..length)
        .map(|i| (draw.wrapping_add(i * 7) & 0xff).to_le_bytes()[0])
        .collect()
}

fn must(holds: bool, what: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Fault::new(Kind::Internal, format!("not so: {what}")))
}

fn messages(world: &mut World) -> Result<()> {
    for (limit, most) in [(1 << 30, 3000), (100, 3000), (1, 40)] {
        world.limit_chunks(limit);
        for n in 0..20 {
            let me = world.process();
            if number(n, me, me) % 5 == 0 {
                std::thread::sleep(Duration::from_millis(2)); // let others run ahead
            }
            // Two to each one with any, one of them to be kept in order behind the other.
            let wanted = |from: u32, to: u32| -> Vec<Vec<u8>> {
                let first = bytes(n, from, to, most);
                if first.is_empty() {
                    Vec::new()
                } else {
                    vec![first, bytes(n + 99, from, to, most)]
                }
            };
            let outgoing = (0..world.size())
                .rev()
                .flat_map(|to| wanted(me, to).into_iter().map(move |bytes| (to, bytes)))
                .collect();
            let expected: Vec<(u32, Vec<u8>)> = (0..world.size())
                .flat_map(|from| wanted(from, me).into_iter().map(move |bytes| (from, bytes)))
                .collect();
            must(
                exchange_bytes(world, outgoing)? == expected,
                "all messages come, in order",
            )?;
        }
    }
    must(
        exchange_bytes(world, Vec::new())?.is_empty(),
        "silence is silence",
    )
}

fn broadcast(world: &mut World) -> Result<()> {
    for limit in [1 << 30, 1000, 7] {
        world.limit_chunks(limit);
        for root in 0..world.size() {
            for most in [0, 1, 7, 8, 5000] {
                let mine = if world.process() == root {
                    bytes(1, root, 0, most)
                } else {
                    vec![9; 3]
                };
                let all = broadcast_bytes(world, root, mine)?;
                must(all == bytes(1, root, 0, most), "all have the root's bytes")?;
            }
        }
    }
    Ok(())
}

fn gather(world: &mut World) -> Result<()> {
    for limit in [1 << 30, 1000, 7] {
        world.limit_chunks(limit);
        for most in [0, 1, 5000] {
            let all = all_gather_bytes(world, &bytes(2, world.process(), 0, most))?;
            let expected: Vec<Vec<u8>> = (0..world.size())
                .map(|from| bytes(2, from, 0, most))
                .collect();
            must(all == expected, "all have everybody's bytes")?;
        }
    }
    Ok(())
}

fn reduce(world: &mut World) -> Result<()> {
    type Join = fn(u64, u64) -> u64;
    let operations: [(Operation, Join); 4] = [
        (Operation::Sum, u64::wrapping_add),
        (Operation::Max, u64::max),
        (Operation::Min, u64::min),
        (Operation::Xor, |a, b| a ^ b),
    ];
    for limit in [1 << 30, 24] {
        world.limit_chunks(limit);
        for (operation, join) in operations {
            let values = |process| (0..10).map(move |n| number(n, process, 0) >> 8);
            let mut mine: Vec<u64> = values(world.process()).collect();
            all_reduce(world, &mut mine, operation)?;
            let mut expected: Vec<u64> = values(0).collect();
            for process in 1..world.size() {
                for (sum, value) in expected.iter_mut().zip(values(process)) {
                    *sum = join(*sum, value);
                }
            }
            must(mine == expected, "the joined values")?;
        }
    }
    barrier(world)
}

/// What `process` sends (or with `receive` gets) in round `n`, in a buffer longer than needed.
fn packed(world: &World, n: u64, most: u64, receive: bool) -> Packed {
    let me = world.process();
    let mut packed = Packed::default();
    for other in 0..world.size() {
        let part = if receive {
            bytes(n, other, me, most)
        } else {
            bytes(n, me, other, most)
        };
        packed
            .counts
            .push(u32::try_from(part.len()).expect("short"));
        packed.bytes.extend(part);
    }
    packed
}

fn rounds(world: &World) -> Result<()> {
    for traffic in [Traffic::Dense, Traffic::Sparse] {
        for most in [1, 5000, 400_000] {
            let mut under_way = Vec::new();
            for n in 0..6 {
                let send = packed(world, n, most, false);
                let mut receive = packed(world, n, most, true);
                receive.bytes.fill(0);
                receive.bytes.extend([5; 3]);
                under_way.push((n, DataRound::start(world, traffic, send, receive)?));
                if under_way.len() == 2 {
                    let (n, mut round) = under_way.remove(0);
                    let _ = round.test()?;
                    finish_round(world, n, most, round)?;
                }
            }
            for (n, round) in under_way {
                finish_round(world, n, most, round)?;
            }
        }
    }
    Ok(())
}

fn finish_round(world: &World, n: u64, most: u64, round: DataRound<'_>) -> Result<()> {
    let (sent, received) = round.wait()?;
    let mut expected = packed(world, n, most, true);
    expected.bytes.extend([5; 3]);
    must(
        received == expected,
        "what was received, and nothing behind it",
    )?;
    must(
        sent == packed(world, n, most, false),
        "what was sent comes back",
    )
}

/// Rounds that no MPI call can carry are refused before MPI sees them.
fn round_limits(world: &World) -> Result<()> {
    let empty = || Packed {
        bytes: Vec::new(),
        counts: vec![0; usize::try_from(world.size()).expect("small")],
    };
    let refused = |send, receive| {
        let round = DataRound::start(world, Traffic::Sparse, send, receive);
        matches!(round.map(|_| ()), Err(fault) if fault.kind == Kind::Internal)
    };
    let mut big = empty();
    big.bytes = vec![0; 1 << 31];
    big.counts[0] = 1 << 31;
    must(refused(empty(), big), "2^31 bytes are too many")?;
    let mut short = empty();
    short.counts[0] = 1;
    must(refused(short, empty()), "the buffer is too short")?;
    must(
        refused(Packed::default(), empty()),
        "each process has a part",
    )
}

fn topology(world: &World) -> Result<()> {
    let topology = Topology::discover(world)?;
    let pretended =
        std::env::var("SHARDLOOM_NODES").map_or(1, |text| text.parse().expect("number"));
    let nodes = world.size().min(pretended);
    must(
        u32::try_from(topology.nodes.len()) == Ok(nodes),
        "the number of nodes",
    )?;
    must(
        topology.hostnames.len() == topology.nodes.len(),
        "each node has a name",
    )?;
    must(
        topology.hostnames.iter().all(|name| !name.is_empty()),
        "and none is empty",
    )?;
    let listed: Vec<u32> = topology.nodes.iter().flatten().copied().collect();
    must(listed.into_iter().eq(0..world.size()), "contiguous blocks")?;
    for (node, members) in (0..).zip(&topology.nodes) {
        for process in members {
            let process = usize::try_from(*process).expect("small");
            must(topology.node_of[process] == node, "both ways are the same")?;
        }
    }
    must(
        topology.share_node(0, world.size() - 1) == (nodes == 1),
        "who shares a node",
    )
}

/// The processes of `failing` fail; all must learn of the lowest.
fn agreement(world: &World) -> Result<()> {
    let (me, last) = (world.process(), world.size() - 1);
    let all: Vec<u32> = (0..=last).collect();
    for failing in [
        vec![],
        vec![last],
        vec![last / 2, last],
        vec![0],
        all,
        vec![],
    ] {
        let mine = if failing.contains(&me) {
            Err(Fault::new(Kind::Io, format!("disk {me}"))
                .file(format!("rank_{me}/x"))
                .rank(me))
        } else {
            Ok(me)
        };
        let agreed = agree(world, mine);
        let Some(lowest) = failing.iter().min() else {
            must(agreed == Ok(me), "no fault, and each keeps its value")?;
            continue;
        };
        let mut expected = Fault::new(Kind::Io, format!("disk {lowest}"))
            .file(format!("rank_{lowest}/x"))
            .rank(*lowest);
        expected.process = Some(*lowest);
        expected.node = Some(world.hostname().to_owned());
        must(agreed == Err(expected), "the lowest one's fault, in full")?;
        let mut others = failing.clone();
        others.dedup();
        must(
            u32::try_from(others.len()) == Ok(world.failed_count()),
            "how many failed",
        )?;
    }
    Ok(())
}

/// Different processes raise the alarm while the others work; nothing is left for the next time.
fn alarm(world: &World) -> Result<()> {
    let (me, size) = (world.process(), world.size());
    let alarm = Alarm::of(world);
    for n in 0..30 {
        let (first, second) = (n % size, if n % 4 == 0 { (n + 1) % size } else { n % size });
        let work = || -> Result<()> {
            must(!alarm.raised(), "nobody has raised it yet")?;
            // Only now may anybody raise it.
            barrier(world)?;
            if me == first || me == second {
                std::thread::sleep(Duration::from_millis(u64::from(n % 3)));
                alarm.raise();
                alarm.raise();
                return Err(Fault::new(Kind::Io, "the disk is gone"));
            }
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(20) {
                alarm.check()?;
                std::thread::yield_now();
            }
            must(false, "the alarm is heard")
        };
        let fault = agree(world, work()).expect_err("a fault");
        let expected = (Kind::Io, Some(first.min(second)));
        must(
            (fault.kind, fault.process) == expected,
            &format!("the fault itself, not {fault}"),
        )?;
        if n % 5 == 0 {
            must(agree(world, Ok(n)) == Ok(n), "the next phase is clean")?;
        }
        if n % 7 == 0 {
            alarm.raise(); // everybody at once, and no fault
            must(
                agree(world, Ok(n)) == Ok(n),
                "an alarm without a fault is none",
            )?;
        }
    }
    Ok(())
}

fn progress(world: &World) -> Result<()> {
    let share = u64::from(world.process() + 1) * 1000;
    let all = (1..=u64::from(world.size())).sum::<u64>() * 1000;
    for step in [10, 0] {
        let mut progress = Progress::start(world);
        let (mut last, start) = (0, Instant::now());
        for part in 1..=60 {
            progress.report(share * part / 60)?;
            let total = progress.total()?;
            must(total >= last && total <= all, "it only grows, up to all")?;
            last = total;
            std::thread::sleep(Duration::from_millis(step));
        }
        if world.process() == 0 && step > 0 {
            // The others go on: their first reports, at least, have come.
            while progress.total()? <= share && world.size() > 1 {
                must(
                    start.elapsed() < Duration::from_secs(20),
                    "process 0 hears of others",
                )?;
            }
        }
        must(progress.finish()? == all, "the sum is exact in the end")?;
    }
    // One that nobody finishes does no harm.
    let mut lost = Progress::start(world);
    lost.report(5)?;
    Ok(())
}

/// Fails on two processes; all end, with the same code.
fn fail(world: &World) -> Result<()> {
    if world.process() + 2 >= world.size() {
        return Err(Fault::new(Kind::MissingShard, "no shard").file("rank_9/net.safetensors"));
    }
    Ok(())
}

/// One process doesn't start the rounds that the others wait for; all end all the same.
fn abandon(world: &World) -> Result<()> {
    let alarm = Alarm::of(world);
    if world.process() == world.size() - 1 {
        alarm.raise();
        return Err(Fault::new(Kind::NoSpace, "the disk is full"));
    }
    let count = 1 << 20;
    for traffic in [Traffic::Dense, Traffic::Sparse] {
        let size = usize::try_from(world.size()).expect("small");
        let part = || Packed {
            bytes: vec![1; size << 20],
            counts: vec![count; size],
        };
        let mut round = DataRound::start(world, traffic, part(), part())?;
        while !round.test()? {
            alarm.check()?;
        }
    }
    must(false, "a round can't end without everybody")
}

/// The last process dies in its way while the others wait for it.
fn die(world: &World, how: impl Fn(&World)) -> Result<()> {
    if world.process() == world.size() - 1 {
        how(world);
    }
    barrier(world)?;
    std::thread::sleep(Duration::from_secs(100));
    Ok(())
}

fn kill_myself() {
    let myself = rustix::process::getpid();
    rustix::process::kill_process(myself, rustix::process::Signal::KILL).expect("a signal");
}
