use super::choose::choose;
use super::{Asked, Offered, is_told_apart};
use crate::fault::Kind;
use crate::source::meta::Name;

/// Ranks in order, each with its files' names without the extension.
fn offered(ranks: &[&[&str]]) -> Offered {
    let path = |rank: u32, name: &&str| format!("rank_{rank}/{name}.safetensors");
    (0u32..)
        .zip(ranks)
        .map(|(rank, names)| (rank, names.iter().map(|name| path(rank, name)).collect()))
        .collect()
}

fn asked(suffix: &str) -> Asked<'_> {
    match suffix {
        "" => Asked::Newest,
        suffix => Asked::Suffix(suffix),
    }
}

// proves P16, P18
#[test]
fn takes_a_name_by_the_place_of_its_rank() {
    let both: [&[&str]; 2] = [&["net0", "net0-1_1"], &["net1", "net1-1_1"]];
    let newest = choose(&offered(&both), Asked::Newest).unwrap();
    assert_eq!(newest.files[&1], "rank_1/net1-1_1.safetensors");
    let chosen = choose(&offered(&both), asked("net*")).unwrap();
    assert_eq!(chosen.files[&1], "rank_1/net1.safetensors");
    // A name of another rank, too, isn't one of this rank's.
    let swapped: [&[&str]; 2] = [&["net0-1_1", "net1-1_1"], &["net0-1_1", "net1-1_1"]];
    let told = choose(&offered(&swapped), Asked::Newest).unwrap_err();
    assert_eq!(told.kind, Kind::Ambiguous);
}

#[test]
fn takes_the_same_position_of_all_ranks() {
    let several: [&[&str]; 2] = [
        &[
            "n_rank_0-1_1",
            "n_rank_0-1_10",
            "n_rank_0-1_2",
            "n_rank_0_1-1_1",
            "n_rank_0-11_1",
            "n_rank_0-2_1",
        ],
        &[
            "n_rank_1-1_1",
            "n_rank_1-1_10",
            "n_rank_1-1_2",
            "n_rank_1_1-1_1",
            "n_rank_1-11_1",
            "n_rank_1-2_1",
        ],
    ];
    let mixed: [&[&str]; 2] = [&["n_rank_0-1_10"], &["n_rank_1-1_10", "n_rank_1-1_20"]];
    let cases: [(&[&[&str]], &str, &str, &str); 16] = [
        (&several, "", "n_rank_0-11_1", "n_rank_1-11_1"),
        (&several, "1_1", "n_rank_0-1_1", "n_rank_1-1_1"),
        (&several, "-1_1", "n_rank_0-1_1", "n_rank_1-1_1"),
        (&several, "_1-1_1", "n_rank_0_1-1_1", "n_rank_1_1-1_1"),
        (&several, "1-1_1", "n_rank_0_1-1_1", "n_rank_1_1-1_1"),
        (&several, "2_1", "n_rank_0-2_1", "n_rank_1-2_1"),
        (&several, "10", "n_rank_0-1_10", "n_rank_1-1_10"),
        (&mixed, "1_10", "n_rank_0-1_10", "n_rank_1-1_10"),
        (&[&["a", "b"], &["a", "b"]], "b", "b", "b"),
        (&[&["net0"], &["net1"]], "", "net0", "net1"),
        (
            &[&["c_0", "d_0-1_1"], &["c_1", "d_0-1_1"]],
            "",
            "d_0-1_1",
            "d_0-1_1",
        ),
        (&[&["s_1", "s_2"], &["s_1", "s_2"]], "", "s_2", "s_2"),
        (&[&["s_1", "s_21"], &["s_1", "s_21"]], "1", "s_1", "s_1"),
        (&[&["n_rank_0"], &["n_rank_1"]], "", "n_rank_0", "n_rank_1"),
        (
            &[&["n_rank_0-network-1_2", "n_rank_0-1_2"], &["n_rank_1-1_2"]],
            "1_2",
            "n_rank_0-1_2",
            "n_rank_1-1_2",
        ),
        (
            &[&["x-1_1", "yx-1_1"], &["x-1_1", "yx-1_1"]],
            "yx-1_1",
            "yx-1_1",
            "yx-1_1",
        ),
    ];
    for (ranks, suffix, first, second) in cases {
        let chosen = choose(&offered(ranks), asked(suffix)).unwrap();
        let expected = [first, second].map(|name| [name]);
        let expected = offered(&[&expected[0], &expected[1]]);
        let files: Offered = chosen
            .files
            .into_iter()
            .map(|(r, path)| (r, vec![path]))
            .collect();
        assert_eq!(files, expected, "{ranks:?} {suffix}");
    }
}

#[test]
fn says_who_has_what() {
    let mixed: [&[&str]; 3] = [
        &["n_rank_0-1_10", "n_rank_0-1_20"],
        &["n_rank_1-1_10", "n_rank_1-1_20"],
        &["n_rank_2-1_10"],
    ];
    let cases: [Case<'_>; 4] = [
        (
            &mixed,
            "",
            Kind::Ambiguous,
            &["1_20 on ranks 0-1; 1_10 on ranks 0-2", "--file-suffix 1_10"],
        ),
        (
            &mixed,
            "1_20",
            Kind::MissingShard,
            &["rank 2 has no file of 1_20", "--file-suffix 1_10"],
        ),
        (
            &mixed,
            "0",
            Kind::MissingShard,
            &["ends with '0'; there are: 1_20, 1_10"],
        ),
        (
            &mixed,
            "_10-1_10",
            Kind::MissingShard,
            &["there are: 1_20, 1_10"],
        ),
    ];
    says(&cases);
}

#[test]
fn says_what_stands_in_the_way() {
    let runs: [&[&str]; 2] = [&["n_rank_0-1_10"], &["n_rank_1_1-1_10"]];
    let cases: [Case<'_>; 7] = [
        (
            &runs,
            "",
            Kind::Ambiguous,
            &["_1-1_10 on rank 1; 1_10 on rank 0", "no position that all"],
        ),
        (
            &runs,
            "1_10",
            Kind::MissingShard,
            &["rank 1 has no file of 1_10"],
        ),
        (
            &[&["n_rank_0-1_10"], &["n_rank_1-11_10"]],
            "1_10",
            Kind::MissingShard,
            &["rank 1 has"],
        ),
        (
            &[&["n_rank_0-1_1"], &["n_rank_0-1_1"]],
            "",
            Kind::Ambiguous,
            &["named for rank 0", "of rank 1"],
        ),
        (
            &[&["a", "b"]],
            "",
            Kind::Ambiguous,
            &["several files could be meant: a.safetensors, b"],
        ),
        (
            &[&["x-1_1"], &["y-1_1"]],
            "",
            Kind::Ambiguous,
            &["y-1_1 on rank 1; x-1_1 on rank 0"],
        ),
        (
            &[&["s_100"], &["s_200"]],
            "",
            Kind::Ambiguous,
            &["s_200 on rank 1; s_100 on rank 0"],
        ),
    ];
    says(&cases);
}

#[test]
fn offers_what_works() {
    // A name with a rank's number means the same position of all.
    let both: [&[&str]; 2] = [
        &["n_rank_0-1_20", "n_rank_0-1_40"],
        &["n_rank_1-1_20", "n_rank_1-1_40"],
    ];
    let typed = choose(&offered(&both), asked("n_rank_0-1_20")).unwrap();
    assert_eq!(typed.files[&1], "rank_1/n_rank_1-1_20.safetensors");
    // A restart that one rank alone has is no choice.
    let restart: [&[&str]; 2] = [&["n_rank_0-1_40", "n_rank_0_1-1_40"], &["n_rank_1-1_40"]];
    let told = choose(&offered(&restart), Asked::Newest).unwrap_err();
    assert_eq!(
        told.hint.as_deref(),
        Some("--file-suffix 1_40 is what all ranks have")
    );
}

/// Names that differ in more than a trainer's numbers.
#[test]
fn of_two_series_none_is_newer() {
    let cases: [Case<'_>; 4] = [
        (
            &[&["ema-1_40", "net-1_20"]],
            "",
            Kind::Ambiguous,
            &["net-1_20.safetensors, ema-1_40", "--file-suffix 1_20"],
        ),
        (
            &[&["net", "net (1)"]],
            "",
            Kind::Ambiguous,
            &["--file-suffix net chooses one, --file-suffix 'net (1)'"],
        ),
        (
            &[&["2026-11-29_23-50", "2026-11-30_13-20"]],
            "",
            Kind::Ambiguous,
            &["2026-11-29_23-50.safetensors, 2026-11-30_13-20"],
        ),
        (
            &[&["backup_30", "net-1_20"]],
            "",
            Kind::Ambiguous,
            &["backup_30.safetensors", "net-1_20"],
        ),
    ];
    says(&cases);
    let plain: [&[&str]; 1] = [&["net", "net-1_20", "net_rank_0-1_10", "net_rank_0_1-1_40"]];
    let newest = choose(&offered(&plain), Asked::Newest).unwrap();
    assert_eq!(newest.files[&0], "rank_0/net_rank_0_1-1_40.safetensors");
}

/// Ranks, suffix, and what is said.
type Case<'a> = (&'a [&'a [&'a str]], &'a str, Kind, &'a [&'a str]);

#[track_caller]
fn says(cases: &[Case<'_>]) {
    for (ranks, suffix, kind, words) in cases {
        let fault = choose(&offered(ranks), asked(suffix)).unwrap_err();
        let text = format!("{fault} {}", fault.hint.clone().unwrap_or_default());
        assert_eq!(fault.kind, *kind, "{text}");
        for word in *words {
            assert!(text.contains(word), "{word} is missing: {text}");
        }
    }
}

#[test]
fn knows_the_older_ones_that_all_have() {
    let ranks: [&[&str]; 2] = [
        &["n_rank_0-1_10", "n_rank_0-1_20", "n_rank_0-1_30"],
        &["n_rank_1-1_10", "n_rank_1-1_30"],
    ];
    let chosen = choose(&offered(&ranks), Asked::Newest).unwrap();
    assert_eq!(chosen.suffix, "1_30");
    let older: Vec<&str> = chosen
        .older
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    assert_eq!(older, ["1_10"]);
    let (name, _) = Name::parse("n_rank_0-1_10.safetensors").unwrap();
    let saved = choose(&offered(&ranks), Asked::Saved(&name)).unwrap();
    assert_eq!(saved.files[&1], "rank_1/n_rank_1-1_10.safetensors");
}

#[test]
fn prefixes_make_names_that_are_read_again() {
    for prefix in [
        "net",
        "",
        "llama3_",
        "a_rank_",
        "checkpoint_",
        "x-1-",
        "Qwen2.5-0.5B_",
    ] {
        assert!(is_told_apart(prefix), "{prefix}");
    }
    for prefix in ["net1", "x-1_", ".h", ".", "x_rank_3b"] {
        assert!(!is_told_apart(prefix), "{prefix}");
    }
}
