//! Whether a checkpoint of another framework is whole: what every command says where it isn't.

use super::{case, copied, copy, expected, full, run, source};
use crate::support::command::{error_line, object};
use crate::support::tensors::{Tensor, Tensors, compare, write};
use serde_json::Value;
use std::path::Path;

#[test]
fn a_universal_checkpoint_without_the_optimizers_states_is_whole() {
    let room = tempfile::tempdir().expect("a directory");
    let src = copied("ds_universal", room.path());
    let is_state = |name: &str| !name.contains("fp32") && name != "optimizer_state.pt";
    for weight in ["up.weight", "norm.bias"] {
        // One that got no gradient has none, whatever the others have.
        let folder = src.join("zero").join(weight);
        for entry in std::fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if is_state(&path.file_name().expect("a name").to_string_lossy()) {
                std::fs::remove_file(path).expect("it was there");
            }
        }
    }
    let out = room.path().join("out");
    run(
        1,
        &format!("unify --src {} --dst {}", src.display(), out.display()),
    )
    .succeeds();
    let mut due = expected("ds_universal");
    due.retain(|name, _| {
        let bare = |weight: &str| name.ends_with(weight) && name != weight;
        !bare("up.weight") && !bare("norm.bias")
    });
    compare(&due, &full(&out)).unwrap_or_else(|why| unreachable!("{why}"));
}

/// What `checkpoints` says of those in `base`: the newest's reason, and the latest.
fn steps(base: &Path) -> (String, Value) {
    let listed = object(&run(
        1,
        &format!("checkpoints list {} --json", base.display()),
    ));
    let all = listed["checkpoints"].as_array().expect("a list");
    let newest = all.last().expect("one at least");
    let why = newest["why"].as_str().unwrap_or_default().to_owned();
    let run = run(1, &format!("checkpoints latest {} --json", base.display()));
    (why, object(&run.succeeds())["step"].clone())
}

#[test]
fn a_broken_step_is_listed_with_what_it_lacks_and_the_one_before_is_the_latest() {
    let room = tempfile::tempdir().expect("a directory");
    let zero = ("ds_zero2", "global_step2", "global_step1");
    let core = ("mg_tp2", "iter_0000012", "iter_0000010");
    let older = ("mg_ranks", "iter_0000012", "iter_0000010");
    for (number, ((name, newest, before), broken, word)) in [
        (
            zero,
            "zero_pp_rank_1_mp_rank_00_optim_states.pt",
            "rank 1: zero_pp_rank_1",
        ),
        (
            zero,
            "mp_rank_00_model_states.pt",
            "mp_rank_00_model_states.pt is missing",
        ),
        (core, "__1_0.distcp", "__1_0.distcp is missing"),
        (core, ".metadata", ".metadata is missing"),
        (older, "mp_rank_01_000/model_optim_rng.pt", "mp_rank_01_000"),
    ]
    .into_iter()
    .enumerate()
    {
        let base = room.path().join(number.to_string());
        copy(&case(name).join("src"), &base);
        copy(&base.join(newest), &base.join(before));
        let due = if name == "ds_zero2" { 2 } else { 12 };
        assert_eq!(steps(&base), (String::new(), due.into()), "{name}");
        std::fs::remove_file(base.join(newest).join(broken)).expect("it was there");
        let (why, latest) = steps(&base);
        assert!(why.contains(word), "{name}: {why}");
        assert_eq!(latest, if due == 2 { 1 } else { 10 }, "{name}: {why}");
        if broken == "__1_0.distcp" {
            let whole = std::fs::read(base.join(before).join(broken)).expect("a file");
            let cut = &whole[..whole.len() - 4000];
            std::fs::write(base.join(newest).join(broken), cut).expect("written");
            let (why, latest) = steps(&base);
            assert!(why.contains("truncated"), "{why}");
            assert_eq!(latest, 10);
        }
    }
}

#[test]
fn one_checkpoint_is_not_called_broken_where_several_are_listed() {
    for name in ["dcp_plain", "ds_universal"] {
        let told = run(1, &format!("checkpoints list {}", source(name)));
        let said = error_line(&told);
        assert!(said.contains("one checkpoint"), "{told:#?}");
    }
}

/// Whatever tells how files belong together is lost where each is read for itself.
#[test]
fn files_that_are_parts_are_not_converted_one_by_one() {
    let room = tempfile::tempdir().expect("a directory");
    let out = room.path().join("out");
    let inside = |name: &str, folder: &str| case(name).join("src").join(folder);
    for (number, place) in [
        inside("ds_universal", ""),
        inside("ds_universal3", ""),
        inside("ds_zero1", ""),
        inside("ds_zero3", "global_step2"),
        inside("dcp_hf_shards", ""),
        inside("dcp_plain", ""),
        inside("hyper_parallel", ""),
        inside("mg_ranks", ""),
        inside("dyn_dp2tp2", "iteration_00000020"),
    ]
    .into_iter()
    .enumerate()
    {
        let (place, to) = (place.display(), ["safetensors", "ckpt"][number % 2]);
        let line = format!("convert {place} --dst {} --to {to}", out.display());
        let told = run(if number == 0 { 2 } else { 1 }, &line);
        assert_eq!(told.status.code(), Some(1), "{place}: {told:#?}");
        assert!(error_line(&told).contains("parts of it"), "{told:#?}");
        assert!(!out.exists(), "{place}: something was written");
    }
    // One file is what its name says.
    let one = inside("ds_universal", "zero/up.weight/fp32.pt");
    let line = format!(
        "convert {} --dst {} --to safetensors",
        one.display(),
        out.display()
    );
    run(1, &line).succeeds();
}

/// A manifest isn't the only word on which files there ought to be.
#[test]
fn verify_without_a_manifest_believes_what_a_checkpoint_tells_of_its_files() {
    type Broken = fn(&Path);
    let gone = |path: &Path| std::fs::remove_file(path).expect("it was there");
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).expect("a file");
        std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).expect("written");
    };
    let junk = |path: &Path| std::fs::write(path, "{}").expect("written");
    let step = "global_step2/zero_pp_rank_1_mp_rank_00_optim_states.pt";
    let cases: [(&str, &str, Broken); 11] = [
        ("dcp_shard0", ".metadata", gone),
        ("dcp_shard0", ".metadata", cut),
        ("dcp_shard0", ".metadata", junk),
        ("dcp_shard0", "__1_0.distcp", gone),
        ("dcp_shard0", "__1_0.distcp", cut),
        ("mg_tp2", "iter_0000012/__1_0.distcp", gone),
        ("ds_zero2", step, gone),
        ("ds_zero2", "global_step2/mp_rank_00_model_states.pt", gone),
        ("ds_universal", "zero/up.weight/exp_avg_sq.pt", gone),
        ("hyper_parallel", ".metadata", junk),
        ("hyper_parallel", "_rank1_.safetensors", gone),
    ];
    for (number, (name, file, broken)) in cases.into_iter().enumerate() {
        let room = tempfile::tempdir().expect("a directory");
        let src = room.path().join("src");
        copy(&case(name).join("src"), &src);
        let line = format!("verify {}", src.display());
        if name != "hyper_parallel" {
            run(1, &line).succeeds();
        }
        broken(&src.join(file));
        let told = run(if number == 3 { 2 } else { 1 }, &line);
        assert_eq!(told.status.code(), Some(1), "{name}, {file}: {told:#?}");
        let said = format!("{}{}", told.stdout, told.stderr);
        let short = file.rsplit('/').next().unwrap_or(file);
        assert!(said.contains(short), "{name}, {file}: {told:#?}");
        assert!(!said.contains("good"), "{told:#?}");
    }
}

/// Where neither the files nor a manifest tell how many there were to be, the result says that.
#[test]
fn files_that_may_not_be_all_are_counted() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    copy(&case("dcp_hf_shards").join("src"), &room.path().join("src"));
    let unify = |src: &str, dst: &str| format!("unify --src {} --dst {}", at(src), at(dst));
    for (processes, dst, files) in [(1, "one", "2 files read"), (2, "two", "2 files read")] {
        let told = run(processes, &unify("src", dst));
        assert!(told.stdout.contains(files), "{told:#?}");
    }
    run(1, &format!("{} --format dcp-hf", unify("one", "own"))).succeeds();
    let own = run(1, &unify("own", "back")).succeeds();
    assert!(!own.stdout.contains("read:"), "{own:#?}");
    std::fs::remove_file(
        room.path()
            .join("src/shard-00002-model-00001-of-00001.safetensors"),
    )
    .expect("it was there");
    let part = run(1, &unify("src", "part"));
    assert!(part.stdout.contains("1 file read"), "{part:#?}");
}

/// What is missing of a distributed checkpoint is named, and what to do.
#[test]
fn a_distributed_checkpoint_without_its_files_says_what_is_missing() {
    let room = tempfile::tempdir().expect("a directory");
    let src = room.path().join("src");
    copy(&case("dcp_shard0").join("src"), &src);
    let line = format!(
        "unify --src {} --dst {}",
        src.display(),
        room.path().join("o").display()
    );
    for (file, told, hint) in [
        (
            "__1_0.distcp",
            "__1_0.distcp: .metadata names this file",
            "copy all files",
        ),
        (
            "__0_0.distcp",
            "only .metadata is here, and no .distcp file",
            "and all files",
        ),
    ] {
        std::fs::remove_file(src.join(file)).expect("it was there");
        let fails = run(1, &line);
        assert!(error_line(&fails).contains(told), "{fails:#?}");
        assert!(fails.stderr.contains(hint), "{fails:#?}");
    }
}

#[test]
fn verify_names_a_file_that_an_index_lists_and_that_is_missing() {
    let room = tempfile::tempdir().expect("a directory");
    let src = copied("pt_views", room.path());
    let map = r#"{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}"#;
    std::fs::rename(
        src.join("model.pt"),
        src.join("pytorch_model-00001-of-00002.bin"),
    )
    .expect("renamed");
    std::fs::write(src.join("pytorch_model.bin.index.json"), map).expect("written");
    let told = run(1, &format!("verify {}", src.display()));
    assert_eq!(told.status.code(), Some(1), "{told:#?}");
    let said = error_line(&told);
    assert!(said.contains("pytorch_model-00002-of-00002.bin"), "{said}");
}

/// A Trainer's directory has the model's file beside the directory of its checkpoint.
#[test]
fn the_model_beside_a_checkpoint_is_converted_and_the_checkpoint_is_called_what_it_is() {
    let room = tempfile::tempdir().expect("a directory");
    let base = room.path().join("run");
    copy(
        &case("ds_universal").join("src"),
        &base.join("global_step2_universal"),
    );
    let model = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[4, 2], 0))]);
    write(&base.join("model.safetensors"), &model);
    let (src, out) = (base.display(), room.path().join("out"));
    let dst = out.display();
    let shown = run(1, &format!("inspect {src} --file-suffix 2")).succeeds();
    assert!(
        shown
            .stdout
            .starts_with("universal checkpoint of DeepSpeed: "),
        "{shown:#?}"
    );
    for (processes, suffix) in [(1, "2"), (4, "2_universal"), (4, "global_step2_universal")] {
        let line = format!("unify --src {src} --file-suffix {suffix} --dst {dst} --overwrite");
        run(processes, &line).succeeds();
        compare(&expected("ds_universal"), &full(&out)).unwrap_or_else(|why| unreachable!("{why}"));
    }
    std::fs::write(base.join("latest_universal"), "global_step2_universal").expect("written");
    for processes in [1, 4] {
        let convert = format!("convert {src} --to ckpt --dst {dst} --overwrite");
        error_line(&run(processes, &convert));
        error_line(&run(
            processes,
            &format!("{convert} --file-name-contains fp32"),
        ));
        run(
            processes,
            &format!("{convert} --file-name-contains model.safetensors"),
        )
        .succeeds();
        run(1, &format!("diff {dst}/model.ckpt {src}/model.safetensors")).succeeds();
    }
}
