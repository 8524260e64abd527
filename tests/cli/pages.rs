//! The pages that tell how to do something: every command on them is run, in both languages.

use super::command::{alone, program};
use super::schema::fits;
use super::support::{self, fixtures::tensors_of};
use super::tensors::{self, Tensor, Tensors};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

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
    let program = format!("#!/bin/sh\nexec '{}' \"$@\"\n", program().display());
    script(&bin.join("shardloom"), &program);
}

/// A copy of what the pages speak of.
fn copied(template: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut copy = Command::new("cp");
    let status = copy.arg("-r").arg(template.join(".")).arg(folder.path());
    assert!(status.status().expect("cp").success());
    folder
}

/// Types `lines` of `page` in `folder`, and stops at the first that fails.
fn types(folder: &Path, page: &Path, lines: &str) {
    let old = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{old}", folder.join("bin").display());
    let text = format!("cd {}\nset -ex\n{lines}", folder.display());
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &text])
        .envs([("PATH", &path), ("OLD_PATH", &old)]);
    // What is measured takes its time.
    let run = support::run_within(shell, 3 * support::TIMEOUT);
    assert!(run.status.success(), "{}: {run:#?}", page.display());
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
    pages.sort();
    for page in pages {
        let folder = copied(template.path());
        let text = commands(&page);
        types(folder.path(), &page, &text);
        tried += text.matches("shardloom ").count();
    }
    assert!(tried > 20, "{tried}");
}

/// Commands in the text of a page that name what is there, and stand for nothing else.
fn spans(page: &Path) -> String {
    let text = fs::read_to_string(page).expect("a page");
    let blocks = text.split("\n```");
    let outside: String = blocks.step_by(2).collect();
    let spans = outside.split('`').skip(1).step_by(2);
    let typed =
        spans.filter(|span| span.contains("shardloom ") && !span.starts_with("shardloom --"));
    let real = typed.filter(|span| {
        let mut words = span.split_whitespace();
        !words.any(|word| {
            word.chars().all(|letter| letter.is_ascii_uppercase()) || word.contains('{')
        })
    });
    real.map(|span| format!("{span}\n")).collect()
}

/// Who doesn't come from MindSpore: the page's block, and its tables' commands, one after the other.
#[test]
fn weights_of_no_trainer_go_the_page_s_way() {
    let template = tempfile::tempdir().expect("a folder");
    prepare(template.path());
    let folder = copied(template.path());
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    let wide = Tensors::from_iter(
        [
            ("self_attn.q_proj", [16, 8]),
            ("self_attn.k_proj", [16, 8]),
            ("self_attn.v_proj", [16, 8]),
            ("self_attn.o_proj", [8, 16]),
            ("mlp.gate_proj", [16, 8]),
            ("mlp.up_proj", [16, 8]),
            ("mlp.down_proj", [8, 16]),
        ]
        .map(|(name, shape)| (format!("model.layers.0.{name}.weight"), shape))
        .into_iter()
        .chain([("model.embed_tokens.weight".to_owned(), [32, 8])])
        .map(|(name, shape)| (name, Tensor::counting("BF16", &shape, 5)))
        .chain([(
            "model.norm.weight".to_owned(),
            Tensor::counting("BF16", &[8], 5),
        )]),
    );
    tensors::write(&model.join("model.safetensors"), &wide);
    let page = docs().join("elsewhere.md");
    let (block, told) = (commands(&page), spans(&page));
    types(folder.path(), &page, &format!("{block}{told}"));
    assert!(told.lines().count() >= 5, "{told}");
    let joined = folder.path().join("full/model-00001-of-00001.safetensors");
    assert_eq!(tensors_of(&joined).expect("weights"), wide);
}

/// What the pages on a batch and on schemas say.
#[test]
fn commands_of_the_reference_work() {
    let template = tempfile::tempdir().expect("a folder");
    prepare(template.path());
    let folder = copied(template.path());
    let room = folder.path();
    let job = "shardloom reshard --src output/checkpoint --src-strategy strategy --dst all/one --dst-strategy new\n";
    fs::write(room.join("jobs.txt"), job).expect("a file");
    let before = "cp -r output/strategy strategy\n\
        shardloom strategy derive --parallel dp=4,tp=1 --model Qwen3-8B --names mcore --output new\n";
    let page = docs().join("cli.md");
    types(room, &page, &format!("{before}{}", commands(&page)));
    for place in [
        "resharded/1_10/rank_3",
        "resharded/1_20/rank_3",
        "all/one/rank_3",
    ] {
        assert!(room.join(place).exists(), "{place}");
    }
    let page = docs().join("stable.md");
    let lines = commands(&page);
    // The checker of schemas isn't on every machine; the tests' own does the same.
    let (first, checks) = lines.split_once('\n').expect("two lines");
    assert!(
        checks.contains("docs/schema/inspect.schema.json"),
        "{checks}"
    );
    types(room, &page, &format!("cp -r Qwen3-8B weights\n{first}"));
    let result = fs::read_to_string(room.join("result.json")).expect("a result");
    fits("inspect", &serde_json::from_str(&result).expect("JSON"));
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
