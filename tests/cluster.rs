//! Several hosts, each with a disk of its own that the others don't see.
//!
//! Skipped, with a word, where the system refuses namespaces.

mod counts;
mod races;

use crate::support::hosts;
use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{RESHARD, alone, error_line, object};
use fixtures::listing;
use hosts::{HOSTS, Hosts};
use oracle::Strategy;
use sample::{Sample, image, layout};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tensors::{Tensor, Tensors};

const PER_HOST: u32 = 2;
const RESHARD_JSON: &str =
    "reshard --json --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt";

/// The host that builds destination rank `rank` of `ranks`.
fn home(rank: usize, ranks: usize) -> usize {
    rank * HOSTS * PER_HOST as usize / ranks / PER_HOST as usize + 1
}

/// The hosts, with the shards of the sample dealt to them: rank r to host `places[r]`.
fn dealt(sample: &Sample, places: &[usize]) -> Option<Hosts> {
    let hosts = Hosts::new(sample.room.path())?;
    for (rank, place) in places.iter().enumerate() {
        let name = format!("src/rank_{rank}");
        hosts.give(*place, &sample.path(&name), &name);
    }
    // Of the strategies each is on one host only.
    hosts.give(1, &sample.path("two.ckpt"), "two.ckpt");
    hosts.give(2, &sample.path("four.ckpt"), "four.ckpt");
    Some(hosts)
}

/// Everything on the hosts' disks, with the hosts.
fn everything(hosts: &Hosts) -> Vec<(usize, PathBuf)> {
    let disk = |host| {
        listing(&hosts.disk(host))
            .into_iter()
            .map(move |f| (host, f))
    };
    (1..=HOSTS).flat_map(disk).collect()
}

/// What stands in `name` of the hosts' disks: path and bytes, with the host.
fn found(hosts: &Hosts, name: &str) -> Vec<(usize, PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for host in 1..=HOSTS {
        let directory = hosts.disk(host).join(name);
        if directory.exists() {
            let mut files = image(&directory);
            if name == "out" && !files.is_empty() {
                // Each host has a manifest of its own part.
                let all = files.len();
                files.retain(|(file, _)| file != Path::new("shardloom.json"));
                assert_eq!(files.len() + 1, all, "no manifest on host {host}");
            }
            found.extend(files.into_iter().map(|(f, b)| (host, f, b)));
        }
    }
    found.sort();
    found
}

/// The files that a run wrote, but for the manifest.
fn written(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = image(directory);
    files.retain(|(file, _)| file != Path::new("shardloom.json"));
    files
}

/// What a run on this machine alone wrote, each file on the host where it is due.
fn due(directory: &Path, host_of: impl Fn(&Path) -> usize) -> Vec<(usize, PathBuf, Vec<u8>)> {
    let files = written(directory).into_iter();
    let mut due: Vec<_> = files.map(|(f, b)| (host_of(&f), f, b)).collect();
    due.sort();
    due
}

fn rank_of(file: &Path) -> usize {
    let directory = file.iter().next().and_then(|name| name.to_str());
    let rank = directory.and_then(|name| name.strip_prefix("rank_")?.parse().ok());
    rank.expect("a rank's directory")
}

/// Fails unless the hosts hold just what is due, and nothing is left beside it.
#[track_caller]
fn assert_found(hosts: &Hosts, due: &[(usize, PathBuf, Vec<u8>)]) {
    let found = found(hosts, "out");
    let names = |files: &[(usize, PathBuf, Vec<u8>)]| -> Vec<(usize, PathBuf)> {
        files.iter().map(|(h, f, _)| (*h, f.clone())).collect()
    };
    assert_eq!(names(&found), names(due));
    assert!(found == due, "the bytes differ");
    assert_tidy(hosts);
}

#[track_caller]
fn assert_tidy(hosts: &Hosts) {
    for host in 1..=HOSTS {
        let entries = std::fs::read_dir(hosts.disk(host)).expect("a disk");
        let names = entries.map(|e| e.expect("an entry").file_name().into_string());
        let hidden: Vec<_> = names
            .filter(|n| n.iter().any(|n| n.starts_with('.')))
            .collect();
        assert!(hidden.is_empty(), "left on host {host}: {hidden:?}");
    }
}

/// `bytes.NAME` of a run's result.
fn bytes(run: &Run, name: &str) -> u64 {
    let object = object(run);
    let value = &object["bytes"][name];
    value.as_u64().unwrap_or_else(|| unreachable!("{object}"))
}

#[test]
fn shards_on_the_hosts_own_disks_are_resharded() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 3]) else {
        return;
    };
    alone(&sample.args(RESHARD)).succeeds();
    for exchange in ["auto", "collective"] {
        let line = format!("{RESHARD_JSON} --overwrite --exchange {exchange}");
        let run = hosts.run(PER_HOST, &line).succeeds();
        assert_eq!(object(&run)["nodes"], Value::from(HOSTS));
        let due = due(&sample.path("out"), |file| home(rank_of(file), 2));
        assert_found(&hosts, &due);
    }
}

#[test]
fn direct_exchange_refuses_what_a_host_does_not_see() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 3]) else {
        return;
    };
    let before = everything(&hosts);
    let run = hosts.run(PER_HOST, &format!("{RESHARD_JSON} --exchange direct"));
    assert_eq!(run.fails().status.code(), Some(1));
    assert_eq!(before, everything(&hosts));
}

#[test]
fn full_weights_are_gathered_to_the_first_host() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[3, 2, 1, 2]) else {
        return;
    };
    let unify = "unify --src @src --src-strategy @four.ckpt --dst @out";
    alone(&sample.args(unify)).succeeds();
    let due = due(&sample.path("out"), |_| 1);
    hosts
        .run(PER_HOST, &format!("{unify} --gather-to-root"))
        .succeeds();
    assert_found(&hosts, &due);
    // Without the flag full weights have one place as well: where rank 0 runs.
    hosts
        .run(PER_HOST, &format!("{unify} --overwrite"))
        .succeeds();
    assert_found(&hosts, &due);
}

#[test]
fn a_source_that_one_host_has_is_split_over_all() {
    let sample = Sample::new();
    let Some(hosts) = Hosts::new(sample.room.path()) else {
        return;
    };
    hosts.give(1, &sample.path("full"), "full");
    hosts.give(3, &sample.path("four.ckpt"), "four.ckpt");
    let split = "split --src @full --dst @out --dst-strategy @four.ckpt";
    alone(&sample.args(split)).succeeds();
    hosts.run(PER_HOST, split).succeeds();
    assert_found(
        &hosts,
        &due(&sample.path("out"), |file| home(rank_of(file), 4)),
    );
}

#[test]
fn checkpoints_on_several_hosts_are_compared() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 1]) else {
        return;
    };
    hosts.give(2, &sample.path("full"), "full");
    let diff = "diff @src @full --a-strategy @four.ckpt";
    hosts.run(PER_HOST, diff).succeeds();
    let file = hosts.disk(2).join("full/model.safetensors");
    let mut bytes = std::fs::read(&file).expect("the weights");
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(&file, bytes).expect("write them");
    let run = hosts.run(PER_HOST, diff).fails();
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(run.stdout.contains("differ"), "{run:#?}");
}

// proves P149
#[test]
fn a_shard_that_no_host_has_is_named() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3]) else {
        return;
    };
    let before = everything(&hosts);
    let run = hosts.run(PER_HOST, RESHARD).fails();
    assert!(error_line(&run).contains("rank_3"), "{run:#?}");
    assert_eq!(before, everything(&hosts));
}

// proves P150
#[test]
fn hosts_that_have_different_files_of_a_rank_are_named() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 3]) else {
        return;
    };
    hosts.give(
        2,
        &sample.path("full/model.safetensors"),
        "src/rank_0/net.safetensors",
    );
    let before = everything(&hosts);
    let run = hosts.run(PER_HOST, RESHARD).fails();
    let line = error_line(&run);
    assert!(line.contains("node1") && line.contains("node2"), "{run:#?}");
    assert_eq!(before, everything(&hosts));
}

#[test]
fn a_disk_that_fails_on_one_host_stops_all() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 3]) else {
        return;
    };
    // On host 2 the destination's place is taken by a file.
    tensors::write_bytes(&hosts.disk(2).join("out"), b"in the way");
    let before = everything(&hosts);
    let run = hosts.run(PER_HOST, RESHARD).fails();
    assert!(error_line(&run).contains("out"), "{run:#?}");
    assert!(run.elapsed.as_secs() < 15, "{run:#?}");
    assert_eq!(before, everything(&hosts));
}

/// 24 MB on six ranks: rows to columns, with a replicated tensor and one that is replicated in pairs.
fn large() -> Sample {
    let (mut whole, mut four, mut two) = (Tensors::new(), Vec::new(), Vec::new());
    for number in 0..4 {
        let name = format!("layers.{number}.weight");
        whole.insert(name.clone(), Tensor::counting("F32", &[1152, 1152], number));
        four.push((0, name.clone(), layout(&[6], &[0, -1])));
        two.push((0, name, layout(&[3, 2], &[-1, 0])));
    }
    whole.insert("norm".to_owned(), Tensor::counting("F32", &[300_000], 9));
    four.push((0, "norm".to_owned(), layout(&[6], &[-1])));
    two.push((0, "norm".to_owned(), layout(&[6], &[0])));
    whole.insert("pairs".to_owned(), Tensor::counting("F32", &[300_000], 5));
    four.push((0, "pairs".to_owned(), layout(&[2, 3], &[0])));
    two.push((0, "pairs".to_owned(), layout(&[3, 2], &[1])));
    Sample::of(whole, Strategy { items: four }, Strategy { items: two })
}

// proves P2
#[test]
fn only_what_a_host_lacks_crosses_the_network() {
    let sample = large();
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 2, 3, 3]) else {
        return;
    };
    alone(&sample.args(RESHARD)).succeeds();
    let run = hosts.run(PER_HOST, RESHARD_JSON).succeeds();
    assert_found(
        &hosts,
        &due(&sample.path("out"), |file| home(rank_of(file), 6)),
    );
    let sent = bytes(&run, "sent");
    // A host has a third of the rows and needs all of them; the pairs of columns are on every host, so
    // whatever is sent is sent once a host. Of `pairs` a host has two thirds, of `norm` all.
    assert_eq!(sent, bytes(&run, "sent_lower_bound"), "{run:#?}");
    let received: u64 = hosts.received().iter().sum();
    let most = sent + sent * 15 / 100 + (2 << 20);
    assert!(
        (sent..most).contains(&received),
        "{received} bytes crossed for {sent}: {run:#?}"
    );
    println!("{received} bytes crossed between hosts for {sent} sent");
}

#[test]
fn what_hosts_share_is_read_once() {
    let sample = large();
    let Some(hosts) = Hosts::new(sample.room.path()) else {
        return;
    };
    alone(&sample.args(RESHARD)).succeeds();
    let due = due(&sample.path("out"), |file| home(rank_of(file), 6));
    let all: u64 = sample.whole.values().map(|t| t.data.len() as u64).sum();
    // Every host needs all of the large tensors; its disk gets what it builds.
    let shared = |name: &str| sample.path(name).display().to_string();
    let line = format!(
        "reshard --json --overwrite --src {} --src-strategy {} --dst @out --dst-strategy {}",
        shared("src"),
        shared("four.ckpt"),
        shared("two.ckpt")
    );
    let slow = sample.path("slow.json");
    tensors::write_bytes(&slow, br#"{"network_gbps": 0.1, "shared_read_gbps": 10}"#);
    let slow = slow.display();
    for (more, copies, sends) in [
        ("", 1, true),
        // The two processes of a host build the columns of the same rows: both read them.
        ("--placement identity", 2, true),
        ("--exchange direct", 3, false),
        (&format!("--machine {slow}"), 3, false),
    ] {
        let dry = hosts.run(PER_HOST, &format!("{line} {more} --dry-run"));
        let run = hosts.run(PER_HOST, &format!("{line} {more}")).succeeds();
        assert_found(&hosts, &due);
        let (read, sent) = (bytes(&run, "read"), bytes(&run, "sent"));
        println!("{more}: {read} of {all} read, {sent} sent");
        // Not all hosts need all of the small tensors.
        let (least, most) = (copies * all * 9 / 10, copies * all * 11 / 10);
        assert!((least..most).contains(&read), "{read} of {all}: {run:#?}");
        assert_eq!(sent > 0, sends, "{run:#?}");
        let dry = dry.succeeds();
        assert_eq!(sent, bytes(&dry, "sent"), "{run:#?}");
        if copies != 2 {
            assert_eq!(read, bytes(&dry, "read"), "{run:#?}");
        }
    }
}

// proves P151
#[test]
fn a_swap_that_only_some_hosts_have_made_is_finished() {
    let sample = Sample::new();
    let Some(hosts) = dealt(&sample, &[1, 2, 3, 3]) else {
        return;
    };
    // Two ranks on three hosts: one would get nothing, and its old files couldn't be replaced.
    let line = "reshard --json --in-place --src @src --src-strategy @four.ckpt --dst-strategy";
    let stranded = hosts.run(PER_HOST, &format!("{line} @two.ckpt")).fails();
    assert!(error_line(&stranded).contains("gets none"), "{stranded:#?}");

    let line =
        "reshard --json --in-place --src @src --src-strategy @two.ckpt --dst-strategy @four.ckpt";
    for host in 1..=HOSTS {
        std::fs::remove_dir_all(hosts.disk(host).join("src")).expect("remove");
    }
    alone(&sample.args(RESHARD)).succeeds();
    for (host, rank) in [(1, 0), (3, 1)] {
        let name = format!("src/rank_{rank}");
        hosts.give(host, &sample.path(&format!("out/rank_{rank}")), &name);
    }
    let keep = |host: usize, name: &str| hosts.disk(host).join(name);
    let old = keep(3, "old");
    copy(&keep(3, "src"), &old);
    hosts.run(PER_HOST, line).succeeds();
    let done = found(&hosts, "src");
    // As if host 3 had been killed before its swap: the new files are complete beside the old ones.
    std::fs::rename(keep(3, "src"), keep(3, ".src.shardloom-partial")).expect("rename");
    std::fs::rename(&old, keep(3, "src")).expect("rename");
    assert!(done != found(&hosts, "src"));
    let run = hosts.run(PER_HOST, line).succeeds();
    assert_eq!(bytes(&run, "written"), 0);
    assert!(done == found(&hosts, "src"), "{run:#?}");
    assert_tidy(&hosts);
    let again = hosts.run(PER_HOST, line).succeeds();
    assert_eq!(bytes(&again, "written"), 0);
    assert!(done == found(&hosts, "src"));
}

fn copy(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("-r").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

#[test]
fn files_are_converted_on_the_hosts_that_have_them() {
    let sample = Sample::new();
    // Host 2 has no file.
    let places = [1, 3, 3, 1];
    let Some(hosts) = dealt(&sample, &places) else {
        return;
    };
    alone(&sample.args("convert @src --dst @out --to ckpt")).succeeds();
    let line = "convert @src --dst @out --to ckpt --json";
    let run = hosts.run(PER_HOST, line).succeeds();
    assert_found(
        &hosts,
        &due(&sample.path("out"), |file| places[rank_of(file)]),
    );
    assert_eq!(bytes(&run, "sent"), 0, "{run:#?}");
    let none = hosts.run(PER_HOST, "convert @src --dst @other --to safetensors");
    assert!(error_line(&none.fails()).contains("safetensors already"));
}

// proves P153
#[test]
fn a_host_that_is_cut_off_ends_the_run_and_loses_nothing() {
    if !support::launcher_watches_hosts() {
        println!("skipped: this launcher doesn't watch its hosts");
        return;
    }
    let sample = large();
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 2, 3, 3]) else {
        return;
    };
    alone(&sample.args(RESHARD)).succeeds();
    let before = everything(&hosts);
    let visible = |all: Vec<(usize, PathBuf)>| -> Vec<(usize, PathBuf)> {
        let hidden = |path: &Path| path.to_string_lossy().contains(".shardloom-");
        all.into_iter().filter(|(_, path)| !hidden(path)).collect()
    };
    let run = hosts.run_and_cut(PER_HOST, RESHARD, 4);
    assert!(run.stderr.contains("lost communication"), "{run:#?}");
    // Open MPI 5 says so, and ends with 0 all the same.
    let of_version_5 = run.stderr.contains("PRTE has lost");
    assert!(!run.status.success() || of_version_5, "{run:#?}");
    assert!((4..40).contains(&run.elapsed.as_secs()), "{run:#?}");
    let after = everything(&hosts);
    assert!(after.len() > before.len(), "it hadn't begun: {run:#?}");
    assert_eq!(before, visible(after));
    // Whoever was killed before it could let go is known to be dead by its silence.
    let soon = [("SHARDLOOM_LOCK_SECONDS", "5".to_owned())];
    hosts.run_with(PER_HOST, RESHARD, &soon).succeeds();
    assert_found(
        &hosts,
        &due(&sample.path("out"), |file| home(rank_of(file), 6)),
    );
}

#[test]
fn what_a_shared_destination_is_built_of_stays_on_its_host() {
    let sample = large();
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 2, 3, 3]) else {
        return;
    };
    let all: u64 = sample.whole.values().map(|t| t.data.len() as u64).sum();
    for job in [
        "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt",
        "unify --src @src --src-strategy @four.ckpt",
    ] {
        let line = format!("{job} --json --overwrite --dst");
        alone(&sample.args(&format!("{line} @out"))).succeeds();
        let shared = sample.path("shared");
        // Small blocks for small files: a block is built on one host.
        let blocks = [("SHARDLOOM_BLOCK_BYTES", "4096".to_owned())];
        let line = format!("{line} {}", shared.display());
        let run = hosts.run_with(PER_HOST, &line, &blocks).succeeds();
        assert!(written(&sample.path("out")) == written(&shared), "{run:#?}");
        // Windows go to the host that has their rows: only those that lie across two hosts' rows need
        // something sent.
        let (sent, least) = (bytes(&run, "sent"), bytes(&run, "sent_lower_bound"));
        assert!(least <= sent && sent < all / 6, "{sent} of {all}: {run:#?}");
        let balance = object(&run)["balance_max_over_mean"].as_f64();
        assert!(balance.is_some_and(|balance| balance < 1.5), "{run:#?}");
        println!("{sent} of {all} sent, at least {least}; {balance:?}");
    }
}
