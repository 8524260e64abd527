//! File systems that can do less than others, or show it later, and permissions.

use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{alone, error_line};
use sample::{Sample, image, layout, own_lock};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tensors::{Tensor, Tensors};

const JOBS: [(&str, &str); 4] = [
    (
        "unify --src @src --src-strategy @four.ckpt --dst @out",
        "out",
    ),
    (
        "split --src @full --dst-strategy @two.ckpt --dst @out",
        "out",
    ),
    ("convert @src --to ckpt --dst @out", "out"),
    (
        "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place",
        "src",
    ),
];

/// Runs the program on `processes`, on a file system that lacks some calls.
fn run(processes: u32, sample: &Sample, line: &str, envs: &[(&str, &str)]) -> Run {
    let args = sample.args(line);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    if processes == 1 {
        support::alone(program, &args, envs)
    } else {
        support::mpirun(processes, program, &args, envs)
    }
}

/// Where nodes write the same files, whole blocks of them fall to each, whatever lies in them.
// proves P55
#[test]
fn nodes_that_write_one_file_divide_it_by_blocks() {
    let sample = Sample::new();
    let envs = [("SHARDLOOM_NODES", "3"), ("SHARDLOOM_BLOCK_BYTES", "64")];
    for (line, strategy) in [
        ("unify --src @src --src-strategy @four.ckpt", ""),
        (
            "reshard --src @src --src-strategy @four.ckpt",
            "--dst-strategy @two.ckpt",
        ),
    ] {
        let line = format!("{line} {strategy} --overwrite --dst");
        alone(&sample.args(&format!("{line} @one"))).succeeds();
        run(4, &sample, &format!("{line} @out"), &envs).succeeds();
        assert!(image(&sample.path("one")) == image(&sample.path("out")));
        alone(&sample.args("verify @out")).succeeds();
    }
}

/// Hidden files in the room.
fn hidden(sample: &Sample) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sample.room.path()).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    paths.filter(is_hidden).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it stands").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("set permissions");
}

#[test]
fn what_there_is_a_way_round_is_gone_round() {
    for (number, lacks) in [
        "swap:EINVAL,link:EPERM",
        "swap:ENOSYS,reserve:EPERM",
        "swap:EOPNOTSUPP,reserve:EINVAL,truncate:ENOSYS",
        "reserve:EOPNOTSUPP,sync_directory:EINVAL",
    ]
    .into_iter()
    .enumerate()
    {
        for (kind, (line, place)) in JOBS.into_iter().enumerate() {
            let processes = if number == kind { 4 } else { 1 };
            let sample = Sample::new();
            tensors::write_bytes(&sample.path("src/notes"), b"mine");
            let more = if place == "out" {
                run(1, &sample, line, &[]).succeeds();
                "--overwrite"
            } else {
                ""
            };
            let line = format!("{line} {more}");
            run(processes, &sample, &line, &[("SHARDLOOM_IO_LACKS", lacks)]).succeeds();
            alone(&sample.args(&format!("verify @{place}"))).succeeds();
            let left = hidden(&sample);
            assert!(left.is_empty(), "{line}, {lacks}: {left:?}");
            let kept = std::fs::read(sample.path("src/notes")).expect("a file");
            assert_eq!(kept, b"mine");
        }
    }
}

// proves P46
#[test]
fn what_can_not_be_done_without_is_found_before_any_weights() {
    for (number, errno) in ["ENOSYS", "EXDEV", "EPERM"].into_iter().enumerate() {
        for (kind, (line, _)) in JOBS.into_iter().enumerate() {
            let processes = if number == kind { 4 } else { 1 };
            let sample = Sample::new();
            let before = image(sample.room.path());
            let lacks = format!("rename:{errno}");
            let envs = [("SHARDLOOM_IO_LACKS", lacks.as_str())];
            let run = run(processes, &sample, line, &envs).fails();
            assert!(
                error_line(&run).contains("can't rename directories"),
                "{run:#?}"
            );
            assert!(before == image(sample.room.path()), "{line}");
            assert!(hidden(&sample).is_empty(), "{line}");
        }
    }
}

/// The program under a umask.
fn masked(sample: &Sample, umask: &str, line: &str) {
    let args = sample.args(line).join(" ");
    let program = env!("CARGO_BIN_EXE_shardloom");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; {program} {args}")]);
    let output = command.output().expect("a shell starts");
    assert!(output.status.success(), "{output:?}");
}

// proves P52
#[test]
fn permissions_are_those_that_cp_and_mkdir_give() {
    for (umask, file, directory) in [
        ("0022", 0o644, 0o755),
        ("0002", 0o664, 0o775),
        ("0007", 0o660, 0o770),
        ("0077", 0o600, 0o700),
    ] {
        let sample = Sample::new();
        for (line, _) in &JOBS[..2] {
            masked(&sample, umask, &format!("{line} --overwrite"));
            for path in fixtures::listing(&sample.path("out")) {
                assert_eq!(
                    mode(&sample.path("out").join(&path)),
                    file,
                    "{umask} {path:?}"
                );
            }
            // The first made the directory, the second has replaced it.
            assert_eq!(mode(&sample.path("out")), directory, "{umask}");
        }
        assert_eq!(mode(&sample.path("out/rank_0")), directory, "{umask}");
    }
}

// proves P53
#[test]
fn a_replaced_directory_keeps_its_permissions_and_group() {
    for (line, place) in JOBS {
        let sample = Sample::new();
        if place == "out" {
            masked(&sample, "0022", line);
        }
        let directory = sample.path(place);
        let group = std::os::unix::fs::chown(&directory, None, Some(33)).is_ok();
        set_mode(&directory, 0o2775);
        let more = if place == "out" { "--overwrite" } else { "" };
        masked(&sample, "0027", &format!("{line} {more}"));
        assert_eq!(mode(&directory), 0o2775, "{line}");
        if group {
            let found = std::fs::metadata(&directory).expect("it stands").gid();
            assert_eq!(found, 33, "{line}");
        }
    }
}

// proves P54
#[test]
fn nothing_of_a_private_source_becomes_readable_by_others() {
    for processes in [1, 4] {
        for (private, mode_of_it) in [
            ("src/rank_2/net.safetensors", 0o600),
            ("src/rank_3", 0o700),
            ("src", 0o750),
        ] {
            let sample = Sample::new();
            set_mode(&sample.path(private), mode_of_it);
            run(processes, &sample, JOBS[0].0, &[]).succeeds();
            let out = sample.path("out");
            for path in fixtures::listing(&out) {
                let found = mode(&out.join(&path));
                assert_eq!(found & 0o007, 0, "{private}: {path:?} {found:o}");
            }
            assert_eq!(mode(&out) & 0o007, 0, "{private}");
            if mode_of_it & 0o070 == 0 {
                assert_eq!(mode(&out) & 0o070, 0, "{private}");
            }
        }
    }
}

// proves P49
#[test]
fn a_mount_point_is_staged_into() {
    let sample = Sample::new();
    let volume = sample.path("volume");
    let Some(_mounted) = Mounted::new(&volume, "size=16m") else {
        return;
    };
    // The lock lies where all that write into it see it: this process's is one that lives.
    tensors::write_bytes(&volume.join(".shardloom-lock"), own_lock().as_bytes());
    let line = JOBS[0].0.replace("@out", "@volume --overwrite");
    let busy = run(1, &sample, &line, &[]).fails();
    assert!(
        error_line(&busy).contains("another run is writing here"),
        "{busy:#?}"
    );
    assert!(error_line(&busy).contains("/volume:"), "{busy:#?}");
    std::fs::remove_file(volume.join(".shardloom-lock")).expect("removed");
    for processes in [1, 4] {
        for line in [JOBS[0].0, JOBS[1].0, JOBS[1].0] {
            let line = line.replace("@out", "@volume --overwrite");
            run(processes, &sample, &line, &[]).succeeds();
            alone(&sample.args("verify @volume")).succeeds();
            let left = image(&volume);
            let strange = |(path, _): &(PathBuf, Vec<u8>)| path.starts_with(".shardloom");
            assert!(!left.iter().any(strange), "{line}");
            assert!(hidden(&sample).is_empty(), "{line}");
        }
    }
    tensors::write_bytes(&volume.join("mine"), b"mine");
    let before = image(&volume);
    let line = JOBS[0].0.replace("@out", "@volume --overwrite");
    let refused = run(4, &sample, &line, &[]).fails();
    assert!(error_line(&refused).contains("mine"), "{refused:#?}");
    assert!(before == image(&volume));
    std::fs::remove_file(volume.join("mine")).expect("remove");
    // Died at any step: the old is whole or the new, once the next run has been.
    for step in (52..140).step_by(17) {
        let fault = format!("exit:{step}");
        let line = format!("{line} --threads 1");
        run(1, &sample, &line, &[("SHARDLOOM_IO_FAULT", &fault)]);
        run(1, &sample, &line, &[]).succeeds();
        alone(&sample.args("verify @volume")).succeeds();
        let left = std::fs::read_dir(&volume).expect("a directory");
        let names = left.map(|entry| entry.expect("an entry").file_name());
        let mut strange = names.filter(|name| name.to_string_lossy().starts_with('.'));
        assert!(strange.next().is_none(), "{fault}");
    }
}

/// Two nodes have one disk, the third has its own: two places are written, each by one of the nodes.
// proves P51
#[test]
fn nodes_of_which_some_share_a_disk_write_each_disk_once() {
    let sample = Sample::new();
    let places = ["a", "a", "b"];
    let launch = |line: &str| {
        let mut launcher = support::launcher(1);
        for (number, place) in places.iter().enumerate() {
            std::fs::create_dir_all(sample.path(place)).expect("a directory");
            if number > 0 {
                launcher.args([":", "-n", "1"]);
            }
            launcher.arg("-wdir").arg(sample.path(place));
            launcher
                .arg(env!("CARGO_BIN_EXE_shardloom"))
                .args(sample.args(line));
        }
        launcher.env("SHARDLOOM_NODES", "3");
        support::run(launcher)
    };
    for line in [
        "split --src @full --dst out --dst-strategy @four.ckpt",
        "split --src @full --dst out --dst-strategy @four.ckpt --overwrite",
        "verify out",
    ] {
        launch(line).succeeds();
        for (rank, place) in [(0, "a"), (1, "a"), (2, "a"), (3, "b")] {
            let other = if place == "a" { "b" } else { "a" };
            let file = |place: &str| {
                sample
                    .path(place)
                    .join(format!("out/rank_{rank}/net.safetensors"))
            };
            assert!(!file(other).exists(), "{line}: {rank}");
            let found = tensors::read(&file(place)).expect("a file").tensors;
            let due = sample.four.cut(&sample.whole, rank).expect("cut");
            tensors::compare(&due, &found).expect("the same");
        }
        for place in ["a", "b"] {
            let names = std::fs::read_dir(sample.path(place)).expect("a directory");
            assert_eq!(names.count(), 1, "{line}: {place}");
        }
    }
}

/// The library made of the C program `name` of the tests' data; none without a compiler.
fn preloaded(sample: &Sample, name: &str) -> Option<String> {
    let library = sample.path(&format!("{name}.so"));
    let source = fixtures::data().join(format!("{name}.c"));
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl");
    if !compiler.status().is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return None;
    }
    Some(library.display().to_string())
}

/// Nodes that send back whole pages, as clients of a network file system do, lose nothing of each other.
// proves P55, P56
#[test]
fn nodes_that_send_back_whole_pages_lose_nothing() {
    let whole = Tensors::from([
        ("a".to_owned(), Tensor::counting("BF16", &[7, 129], 1)),
        ("b".to_owned(), Tensor::counting("BF16", &[300, 37], 2)),
        ("w".to_owned(), Tensor::counting("BF16", &[1200, 66], 3)),
    ]);
    let of = |ranks: usize| {
        let cut = |name| (name, layout(&[ranks], &[0, -1]));
        oracle::Strategy::of(&[("a", layout(&[ranks], &[-1, -1])), cut("b"), cut("w")])
    };
    let sample = Sample::of(whole, of(4), of(3));
    let Some(library) = preloaded(&sample, "pages") else {
        return;
    };
    // Each process keeps pages of its own, so each is a node.
    for line in [
        "unify --src @src --src-strategy @four.ckpt",
        "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt",
        "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --format ckpt",
        "convert @src --to ckpt --crc",
    ] {
        alone(&sample.args(&format!("{line} --overwrite --dst @one"))).succeeds();
        let envs = [
            ("SHARDLOOM_NODES", "3"),
            ("SHARDLOOM_BLOCK_BYTES", "4096"),
            ("LD_PRELOAD", library.as_str()),
        ];
        run(3, &sample, &format!("{line} --overwrite --dst @out"), &envs).succeeds();
        assert!(
            image(&sample.path("one")) == image(&sample.path("out")),
            "{line}"
        );
    }
}

/// A name is seen late on another node, for less time than a network file system remembers it.
// proves P50
#[test]
fn names_that_are_seen_late_are_waited_for() {
    let sample = Sample::new();
    let Some(library) = preloaded(&sample, "lag") else {
        return;
    };
    for name in [".shardloom-probe", "shardloom-partial"] {
        let envs = [
            ("SHARDLOOM_NODES", "2"),
            ("LD_PRELOAD", library.as_str()),
            ("LAG_NAME", name),
            ("LAG_MS", "700"),
        ];
        run(2, &sample, &format!("{} --overwrite", JOBS[1].0), &envs).succeeds();
        sample.check("out", &sample.two, &sample.whole);
        assert!(hidden(&sample).is_empty(), "{name}");
    }
}

/// What a run left that died while it asked who sees its files is taken for nobody's answer.
#[test]
fn a_probe_that_was_left_is_no_answer() {
    let sample = Sample::new();
    let mut left = Vec::new();
    for name in ["00000000000000000000000000000000", "1", "4711"] {
        let file = sample.room.path().join(format!(".shardloom-probe-{name}"));
        std::fs::write(&file, "of another run").unwrap();
        left.push(file);
    }
    let envs = [("SHARDLOOM_NODES", "2")];
    run(2, &sample, &format!("{} --overwrite", JOBS[1].0), &envs).succeeds();
    sample.check("out", &sample.two, &sample.whole);
    let found = std::fs::read_dir(sample.room.path()).unwrap();
    let probes = found.map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(".shardloom-probe-")
    });
    // Its own is gone; who left the others may still be there.
    assert!(probes.into_iter().all(|path| left.contains(&path)));
}

// proves P52
#[test]
fn new_files_take_after_the_directory_that_they_are_made_in() {
    let sample = Sample::new();
    let room = sample.room.path();
    if std::os::unix::fs::chown(room, None, Some(33)).is_err() {
        println!("skipped: no right to change groups");
        return;
    }
    set_mode(room, 0o2775);
    // rwx for the owner, user 33 and the group, r-x for others.
    let entries = [
        (1u16, 7u16, u32::MAX),
        (2, 7, 33),
        (4, 7, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, allowed, who) in entries {
        list.extend(
            tag.to_le_bytes()
                .into_iter()
                .chain(allowed.to_le_bytes())
                .chain(who.to_le_bytes()),
        );
    }
    let (default, access) = ("system.posix_acl_default", "system.posix_acl_access");
    let lists = rustix::fs::setxattr(room, default, &list, rustix::fs::XattrFlags::empty()).is_ok();
    if !lists {
        println!("without access lists: the file system has none");
    }
    let about = |path: &Path| {
        let list = |name: &str| {
            let mut bytes = vec![0u8; 256];
            let length = rustix::fs::getxattr(path, name, &mut bytes[..]).unwrap_or(0);
            bytes.truncate(length);
            bytes
        };
        let gid = std::fs::metadata(path).expect("it stands").gid();
        (gid, mode(path), list(default), list(access))
    };
    tensors::write_bytes(&sample.path("plain/file"), b"as cp makes it");
    let due = [
        about(&sample.path("plain")),
        about(&sample.path("plain/file")),
    ];
    assert_eq!(due[0].2.is_empty(), !lists);
    for processes in [1, 4] {
        run(
            processes,
            &sample,
            &format!("{} --overwrite", JOBS[1].0),
            &[],
        )
        .succeeds();
        let out = sample.path("out");
        assert_eq!(about(&out), due[0]);
        for path in fixtures::listing(&out) {
            assert_eq!(about(&out.join(&path)), due[1], "{path:?}");
            assert_eq!(
                about(out.join(&path).parent().expect("a parent")),
                due[0],
                "{path:?}"
            );
        }
    }
}

// proves P47
#[test]
fn too_few_files_are_told_before_any_is_made() {
    let sample = Sample::new();
    let volume = sample.path("volume");
    let Some(_mounted) = Mounted::new(&volume, "size=16m,nr_inodes=7") else {
        return;
    };
    let line = "split --src @full --dst-strategy @four.ckpt --dst @volume/out";
    for processes in [1, 4] {
        let refused = run(processes, &sample, line, &[]).fails();
        assert!(
            error_line(&refused).contains("more can be made there"),
            "{refused:#?}"
        );
        assert_eq!(std::fs::read_dir(&volume).expect("a directory").count(), 0);
    }
}

struct Mounted(PathBuf);

impl Mounted {
    /// A file system in memory at `path`; none without the right to mount one.
    fn new(path: &Path, options: &str) -> Option<Mounted> {
        std::fs::create_dir(path).expect("make a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
        let mounted = mount.output().is_ok_and(|run| run.status.success());
        if !mounted {
            println!("skipped: no right to mount");
        }
        mounted.then(|| Mounted(path.to_owned()))
    }
}

impl Mounted {
    /// A directory under another name, too; none without the right to mount it.
    fn again(directory: &Path, path: &Path) -> Option<Mounted> {
        std::fs::create_dir(path).expect("make a directory");
        let mut mount = Command::new("mount");
        mount.arg("--bind").args([directory, path]);
        let mounted = mount.output().is_ok_and(|run| run.status.success());
        mounted.then(|| Mounted(path.to_owned()))
    }
}

/// A directory that is mounted at two places is one: what is read there isn't written over, and who writes by one name
/// is seen by the other.
#[test]
fn a_directory_under_two_names_is_one() {
    let sample = Sample::new();
    let [volume, other] = ["src", "other"].map(|name| sample.path(name));
    let Some(_mounted) = Mounted::again(&volume, &other) else {
        println!("skipped: no right to mount");
        return;
    };
    let before = image(&volume);
    for processes in [1, 4] {
        for (line, relation) in [
            (
                "unify --src @src --src-strategy @four.ckpt --dst @other",
                "is the source",
            ),
            (
                "unify --src @other --src-strategy @four.ckpt --dst @src",
                "is the source",
            ),
            (
                "unify --src @src --src-strategy @four.ckpt --dst @other/rank_0",
                "lies inside the source",
            ),
            (
                "convert @src --to ckpt --dst @other/new",
                "lies inside the source",
            ),
            (
                "reshard --src @other --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @src",
                "is the source",
            ),
        ] {
            let refused = run(processes, &sample, &format!("{line} --overwrite"), &[]).fails();
            assert!(
                error_line(&refused).contains(relation),
                "{line}: {refused:#?}"
            );
            assert!(before == image(&volume), "{line}");
        }
    }
    // Another's lock lies where that one's name for the directory is a mount point: inside.
    let result = sample.path("result");
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @result")).succeeds();
    tensors::write_bytes(&result.join(".shardloom-lock"), own_lock().as_bytes());
    let before = image(&result);
    let line = "unify --src @src --src-strategy @four.ckpt --dst @result --overwrite";
    let busy = run(1, &sample, line, &[]).fails();
    assert!(
        error_line(&busy).contains("another run is writing here"),
        "{busy:#?}"
    );
    assert!(before == image(&result));
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What a place lacks is told before a job finds out, and nothing stays there.
#[test]
fn the_doctor_tells_what_a_place_lacks() {
    let sample = Sample::new();
    let envs = [
        ("SHARDLOOM_NODES", "2"),
        ("SHARDLOOM_IO_LACKS", "swap:EINVAL"),
    ];
    let before = std::fs::read_dir(sample.path(""))
        .expect("a directory")
        .count();
    let examined = run(2, &sample, "doctor --json @ @not/yet", &envs).succeeds();
    let told: serde_json::Value = serde_json::from_str(&examined.stdout).expect("one object");
    let findings = told["findings"].as_array().expect("findings");
    let of = |state: &str| -> Vec<String> {
        let of_it = findings.iter().filter(|finding| finding["state"] == state);
        let texts = of_it.map(|finding| finding["found"].as_str().expect("a text").to_owned());
        texts.collect()
    };
    let odd = of("odd").join("\n");
    assert_eq!(
        odd.matches("it can't swap directories").count(),
        2,
        "{told}"
    );
    assert!(odd.contains("doesn't exist: what follows is of "), "{told}");
    let right = of("right").join("\n");
    assert_eq!(right.matches("all nodes share it").count(), 2, "{told}");
    assert!(of("wrong").is_empty() && told["ok"] == true, "{told}");
    let topics: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["topic"].as_str())
        .collect();
    for topic in ["mpi", "limits", "memory", "cores", "clocks"] {
        assert!(topics.contains(&topic), "{topic}: {told}");
    }
    for line in [
        "stack (ulimit -s)",
        "locked memory (ulimit -l)",
        "/dev/shm",
        " everywhere",
    ] {
        let all = findings
            .iter()
            .filter_map(|finding| finding["found"].as_str());
        assert!(
            all.into_iter().any(|found| found.contains(line)),
            "{line}: {told}"
        );
    }
    let after = std::fs::read_dir(sample.path(""))
        .expect("a directory")
        .count();
    assert_eq!(before, after);
    // A file is no place; nobody else says it.
    let refused = run(1, &sample, "doctor @four.ckpt", &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
    assert!(refused.stdout.contains("WRONG  is a file"), "{refused:#?}");
}

/// A file that a command writes is there or isn't, wherever it dies, and nothing hidden stays once it has been
/// written.
#[test]
fn a_single_file_leaves_nothing_of_runs_that_died() {
    let sample = Sample::new();
    let line = "strategy new --mesh tp=2 --rule w1=tp,- --weights @full --output @new.json";
    run(1, &sample, line, &[]).succeeds();
    let whole = std::fs::read(sample.path("new.json")).expect("a strategy");
    std::fs::remove_file(sample.path("new.json")).expect("removed");
    let mut left_at_all = 0;
    for step in 1.. {
        let fault = format!("exit:{step}");
        let died = run(1, &sample, line, &[("SHARDLOOM_IO_FAULT", &fault)]);
        let there = std::fs::read(sample.path("new.json")).unwrap_or_default();
        assert!(there.is_empty() || there == whole, "{fault}");
        left_at_all += hidden(&sample).len();
        run(1, &sample, &format!("{line} --overwrite"), &[]).succeeds();
        assert!(hidden(&sample).is_empty(), "{fault}: {:?}", hidden(&sample));
        std::fs::remove_file(sample.path("new.json")).expect("removed");
        if died.status.success() {
            break;
        }
    }
    assert!(left_at_all > 0, "none died in the middle");
}
