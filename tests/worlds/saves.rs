//! Files of two saves in one directory.

use super::{case, copy, run};
use crate::support::command::refuses;
use crate::support::tensors::read;
use std::path::Path;

/// The CRC-32 that an archive has of each of its files.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
    let all = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    });
    !all
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let found = bytes.windows(wanted.len()).position(|part| part == wanted);
    found.unwrap_or_else(|| unreachable!("{wanted:?} isn't there"))
}

/// Puts other bytes in the place of the first of these.
fn change(file: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(file).expect("a file");
    let at = find(&bytes, from);
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(file, bytes).expect("written");
}

/// The same in the pickle of a file, whose CRC is told in two places.
fn change_pickle(file: &Path, from: &[u8], to: &[u8]) {
    let bytes = std::fs::read(file).expect("a file");
    let begin = find(&bytes, b"\x80\x02");
    let end = begin + find(&bytes[begin..], b"PK\x03\x04");
    let pickle = |bytes: &[u8]| {
        let size = bytes[..begin].iter().rposition(|byte| *byte != b'F');
        assert!(size.is_some());
        bytes[begin..end].to_vec()
    };
    // What stands behind the pickle's end fills the place up.
    let before = pickle(&bytes);
    let length = (1..=before.len()).rev().find(|length| {
        let sum = crc32(&before[..*length]).to_le_bytes();
        bytes.windows(4).filter(|four| *four == sum).count() >= 2
    });
    let old = crc32(&before[..length.expect("a pickle")]).to_le_bytes();
    change(file, from, to);
    let mut bytes = std::fs::read(file).expect("a file");
    let new = crc32(&bytes[begin..begin + length.expect("a pickle")]).to_le_bytes();
    while let Some(at) = bytes.windows(4).position(|four| four == old) {
        bytes[at..at + 4].copy_from_slice(&new);
    }
    std::fs::write(file, bytes).expect("written");
}

/// Each with the file that is another save's, and what is said of it.
#[test]
fn files_of_two_saves_are_no_checkpoint() {
    let norm = "decoder.layers.0.input_layernorm.weight";
    let due = read(&case("mg_ranks").join("expected.safetensors"));
    let due = due.expect("what is due").tensors;
    let norm_bytes = &due.get(norm).expect("a norm").data;
    let mut other = norm_bytes.clone();
    other[0] ^= 1;
    let (two, one) = (2f32.to_le_bytes(), 1f32.to_le_bytes());
    type Change<'a> = (fn(&Path, &[u8], &[u8]), &'a [u8], &'a [u8]);
    let rows: [(&str, &str, Change<'_>, &str); 5] = [
        (
            "mg_ranks",
            "iter_0000012/mp_rank_01_001/model_optim_rng.pt",
            (
                change_pickle,
                b"iterationq\x13K\x0c",
                b"iterationq\x13K\x0b",
            ),
            "iteration is 11, and 12 in",
        ),
        (
            "mg_ranks",
            "iter_0000012/mp_rank_01_000/model_optim_rng.pt",
            (change, norm_bytes, &other),
            "layernorm.weight is BF16 [8] with the sum",
        ),
        (
            "ds_zero1",
            "global_step2/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
            (change, &two, &one),
            "step.0 is 1, and 2 in",
        ),
        (
            "ds_zero3",
            "global_step2/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt",
            (change, &two, &one),
            "step.0 is 1, and 2 in",
        ),
        (
            "ds_zero3",
            "global_step2/zero_pp_rank_1_mp_rank_00_model_states.pt",
            (change_pickle, b"global_steps", b"global_ztepx"),
            "",
        ),
    ];
    for (name, file, (change, from, to), said) in rows {
        let room = tempfile::tempdir().expect("a directory");
        let src = room.path().join("src");
        copy(&case(name).join("src"), &src);
        change(&src.join(file), from, to);
        let line = |more: &str| {
            let [src, dst] =
                [&src, &room.path().join("full")].map(|path| path.display().to_string());
            format!("unify --src {src} --dst {dst}{more}")
        };
        if said.is_empty() {
            // What doesn't tell it contradicts nobody.
            run(2, &line("")).succeeds();
            continue;
        }
        let refused = run(2, &line(""));
        refuses(&refused, said);
        assert!(refused.stderr.contains(file), "{refused:#?}");
        assert!(!room.path().join("full").exists());
        run(1, &line(" --verify none")).succeeds();
    }
}
