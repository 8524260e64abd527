//! The pages that tell how to do something: every command on them is run, in both languages.

use super::command::alone;
use super::support;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The commands of a page: what stands in blocks marked as a shell's.
fn commands(page: &Path) -> String {
    let text = fs::read_to_string(page).expect("a page");
    let blocks = text.split("\n```sh\n").skip(1);
    let inside = blocks.filter_map(|block| block.split("\n```").next());
    inside.map(|block| format!("{block}\n")).collect()
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a script");
}

/// What the pages speak of: a model, and a job's output with two steps of four ranks and their strategy.
fn prepare(folder: &Path) {
    let model = folder.join("Qwen3-8B");
    fs::create_dir_all(&model).expect("a folder");
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model/qwen3/hf");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(real.join(name), model.join(name)).expect("a model");
    }
    let (model, strategy) = (model.display(), folder.join("output/strategy"));
    let (strategy, made) = (strategy.display(), folder.join("output/checkpoint"));
    let derive = format!(
        "strategy derive --parallel dp=2,tp=2 --model {model} --names mcore --output {strategy}"
    );
    let import = format!(
        "import --hf {model} --dst {} --dst-strategy {strategy} --names mcore",
        made.display()
    );
    for line in [derive, import] {
        alone(&line.split(' ').collect::<Vec<_>>()).succeeds();
    }
    let megatron = format!(
        "reshard --src {} --src-strategy {strategy} --dst {} --format megatron",
        made.display(),
        folder.join("megatron").display()
    );
    alone(&megatron.split(' ').collect::<Vec<_>>()).succeeds();
    fs::remove_file(made.join("shardloom.json")).expect("a manifest");
    for rank in 0..4 {
        let rank_dir = made.join(format!("rank_{rank}"));
        let file = |step| rank_dir.join(format!("qwen3_rank_{rank}-1_{step}.safetensors"));
        fs::copy(rank_dir.join("net.safetensors"), file(20)).expect("a step");
        fs::rename(rank_dir.join("net.safetensors"), file(10)).expect("a step");
    }
    let bin = folder.join("bin");
    fs::create_dir(&bin).expect("a folder");
    let launcher = "#!/bin/sh\nlauncher=$(PATH=$OLD_PATH command -v \"${MPIRUN:-mpirun}\")\n\
        exec \"$launcher\" $MPIRUN_ARGS \"$@\"\n";
    script(&bin.join("mpirun"), launcher);
    let program = format!(
        "#!/bin/sh\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_shardloom")
    );
    script(&bin.join("shardloom"), &program);
}

#[test]
fn every_command_of_a_task_page_works() {
    let template = tempfile::tempdir().expect("a folder");
    prepare(template.path());
    let mut tried = 0;
    let mut pages: Vec<PathBuf> = fs::read_dir(docs().join("tasks"))
        .expect("pages")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    pages.push(docs().join("benchmark.md"));
    pages.sort();
    for page in pages {
        let folder = tempfile::tempdir().expect("a folder");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(template.path().join("."))
            .arg(folder.path())
            .status();
        assert!(copied.expect("cp").success());
        let old = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{old}", folder.path().join("bin").display());
        let text = format!(
            "cd {}\nset -ex\n{}",
            folder.path().display(),
            commands(&page)
        );
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &text])
            .envs([("PATH", &path), ("OLD_PATH", &old)]);
        let run = support::run_within(shell, 3 * support::TIMEOUT);
        assert!(run.status.success(), "{}: {run:#?}", page.display());
        tried += text.matches("shardloom ").count();
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn pages_in_chinese_have_the_same_commands() {
    let mut compared = 0;
    for folder in ["tasks", "."] {
        let Ok(entries) = fs::read_dir(docs().join("zh").join(folder)) else {
            continue;
        };
        for page in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Some(name) = page.file_name().filter(|_| page.is_file()) else {
                continue;
            };
            let english = docs().join(folder).join(name);
            assert_eq!(commands(&page), commands(&english), "{}", page.display());
            compared += 1;
        }
    }
    let tasks = fs::read_dir(docs().join("tasks")).expect("pages").count();
    assert_eq!(compared, tasks + 2, "a page is missing in one language");
}
