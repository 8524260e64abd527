//! `--report`: a page of what was done, that needs nothing else.

use crate::support;
use crate::support::command::{RESHARD, alone, error_line, under_mpi};
use crate::support::sample::{Sample, image};
use std::path::Path;

/// What a page must not have: it loads nothing, runs nothing, and draws nothing out of bounds.
fn is_whole(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for word in [
        "<script",
        "http:",
        "https:",
        "src=",
        "@import",
        "url(",
        "NaN",
        "inf\"",
        "undefined",
    ] {
        assert!(!page.contains(word), "{word}: {page}");
    }
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("lang=\"en\""));
    // A picture has a name, and a table that says the same.
    let pictures = page.matches("<svg ").count();
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), pictures);
    assert_eq!(page.matches("The same as a table").count(), pictures);
}

fn read(sample: &Sample, name: &str) -> String {
    std::fs::read_to_string(sample.path(name)).expect("a page")
}

#[test]
fn a_report_tells_what_a_job_did() {
    let sample = Sample::in_memory();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let line = format!(
        "{RESHARD} --sync none --exchange collective --report @p/page.html --report-tensor w2 --json"
    );
    let args = sample.args(&line);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let run = support::mpirun(4, program, &args, &[("SHARDLOOM_NODES", "2")]).succeeds();
    let result = crate::support::command::object(&run);
    let page = read(&sample, "p/page.html");
    is_whole(&page);
    for told in [
        "Brought 3 tensors into 2 files on 4 processes of 2 nodes",
        result["run"].as_str().expect("an id"),
        "<summary>w2, F32 16 x 8</summary>",
        "before: w2, in 4 parts",
        "after: w2, in 2 parts",
        "Bytes from the node of a row to the node of a column",
        "reading, s",
        "rank_1/net1.safetensors",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let first = page.find("<summary>w2").expect("w2");
    assert!(page.find("<summary>b,").is_none_or(|other| other > first));
    assert_eq!(
        std::fs::read_dir(sample.path("p"))
            .expect("a directory")
            .count(),
        1
    );
    // Another takes its place; what is no report stays.
    let dry = format!("{RESHARD} --overwrite --dry-run --report @p/page.html");
    alone(&sample.args(&dry)).succeeds();
    let planned = read(&sample, "p/page.html");
    is_whole(&planned);
    assert!(planned.contains("wrote nothing"), "{planned}");
    let failed = format!("{RESHARD} --report @p/page.html");
    alone(&sample.args(&failed)).fails();
    assert!(read(&sample, "p/page.html").contains("Failed."));
    let before = image(sample.room.path());
    for place in [
        "@four.ckpt",
        "@src/page.html",
        "@out/page.html",
        "@out",
        "@p",
        "@four.ckpt/page.html",
    ] {
        let run = alone(&sample.args(&format!("{RESHARD} --overwrite --report {place}"))).fails();
        assert!(
            error_line(&run).contains(place.trim_start_matches('@')),
            "{run:#?}"
        );
        assert!(before == image(sample.room.path()), "{place}");
    }
}

#[test]
fn reports_of_other_commands() {
    let sample = Sample::in_memory();
    alone(&sample.args(&format!("{RESHARD} --sync none"))).succeeds();
    let lines = [
        (
            "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt",
            "Compared 3 tensors",
        ),
        ("verify @out", "Checked "),
        (
            "unify --src @out --src-strategy @two.ckpt --dst @full1 --sync none",
            "Brought 3 tensors",
        ),
        (
            "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full",
            "Planned 3 tensors from 4 ranks to 2 ranks",
        ),
        (
            "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full --ranks-per-node 1",
            "Bytes from the node of a row",
        ),
    ];
    for (line, told) in lines {
        alone(&sample.args(&format!("{line} --report @page.html"))).succeeds();
        let page = read(&sample, "page.html");
        is_whole(&page);
        assert!(page.contains(told), "{line}: {page}");
    }
    under_mpi(
        2,
        &sample.args("bench collectives --operation barrier --time 1ms --report @page.html"),
    )
    .succeeds();
    assert!(read(&sample, "page.html").contains("bench collectives"));
    let run = alone(&sample.args("verify @out --report @out/page.html"));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    // Of a browser that is there: it finds nothing to complain of.
    let Ok(browser) = std::env::var("SHARDLOOM_CHROMIUM") else {
        return;
    };
    let page = format!("file://{}", sample.path("page.html").display());
    let output = std::process::Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
            &page,
        ])
        .output()
        .expect("a browser");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !said.contains("CONSOLE"),
        "{said}"
    );
}
