//! The fault for what is known by sight.

use crate::fault::{Fault, Result};
use crate::store::formats::foreign::link::LINK;
use crate::store::formats::foreign::pointer::GIT_LFS;
use crate::store::formats::row::{Entries, Start};
use crate::store::formats::table::FOREIGN;
use crate::store::io::{self, Standing};
use std::path::Path;

/// Refuses a file that begins as something that is known and not read. Nothing is said of one of an
/// unknown kind. Local.
///
/// # Errors
/// The row's, without the file's name.
pub fn refuse_start(start: &Start<'_>) -> Result<()> {
    let told = FOREIGN
        .iter()
        .find_map(|row| (row.file)(start).map(|what| row.fault(what)));
    told.map_or(Ok(()), Err)
}

/// What is known by sight and not read: what each is called, and what to do with it.
pub fn known_by_sight() -> impl Iterator<Item = (&'static str, &'static str)> {
    FOREIGN.iter().map(|row| (row.name, row.hint))
}

/// Refuses a text that stands for a file: what Git LFS keeps in its place, or a link that a copy made a text. Local.
///
/// # Errors
/// [`crate::fault::Kind::Corrupt`], without the file's name.
pub fn refuse_pointer(start: &Start<'_>) -> Result<()> {
    let mut rows = [&GIT_LFS, &LINK].into_iter();
    let told = rows.find_map(|row| (row.file)(start).map(|what| row.fault(what)));
    told.map_or(Ok(()), Err)
}

/// Refuses a directory, in which no weights were found, that is something known. Nothing is said of
/// one of an unknown kind, or of what is no directory. Local.
///
/// # Errors
/// The row's, naming the directory; [`crate::fault::Kind::Io`].
pub fn refuse_directory(path: &Path) -> Result<()> {
    if io::standing(path)? != Standing::Directory {
        return Ok(());
    }
    let named = |fault: Fault| fault.file(path.display().to_string());
    let entries = Entries::of(path)?;
    let told = FOREIGN
        .iter()
        .find_map(|row| (row.directory)(&entries).map(|what| row.fault(what)));
    told.map_or(Ok(()), |fault| Err(named(fault)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(name: &str, bytes: &[u8]) -> String {
        let start = Start {
            name,
            size: bytes.len() as u64,
            bytes,
        };
        refuse_start(&start).map_or_else(|fault| fault.message, |()| String::new())
    }

    fn of_directory(paths: &[&str]) -> String {
        let entries = Entries::named(paths);
        let told = FOREIGN.iter().find_map(|row| (row.directory)(&entries));
        told.unwrap_or_default()
    }

    // proves P100
    #[test]
    fn tells_files_by_their_first_bytes() {
        let zip = |first: &str| {
            let mut bytes = b"PK\x03\x04".to_vec();
            bytes.resize(30, 0);
            bytes.extend(first.bytes());
            bytes
        };
        let pointer =
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n";
        let cases: [(&str, &[u8], &str); 20] = [
            ("m.safetensors", b"", "is empty"),
            ("m.safetensors", &[0; 64], "begins with zeros"),
            ("m.safetensors", pointer, "stands for 4976698672 bytes"),
            (
                "__0_0.distcp",
                &zip("archive/data.pkl"),
                "distributed checkpoint",
            ),
            (".metadata", b"\x80\x02ctorch", "distributed checkpoint"),
            (
                "m.bin",
                b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e",
                "PyTorch",
            ),
            ("m.bin", b"\x80\x02}q\x00(X", "pickle"),
            ("m.gguf", b"GGUF\x03\x00\x00\x00", "GGUF"),
            ("m.npy", b"\x93NUMPY\x01\x00", "NumPy"),
            ("m.npz", &zip("a.npy"), "NumPy"),
            ("m.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
            ("m.gz", b"\x1f\x8b\x08\x00", "gzip"),
            ("m.zip", &zip("a.txt"), "zip"),
            ("m.safetensors", b"\n <!DOCTYPE html><html>", "HTML"),
            ("m.safetensors", b"{\"error\":\"Invalid\"}", "JSON"),
            ("m.safetensors", b"Entry not found", "text"),
            ("m.safetensors", b"../../blobs/00aa", "link"),
            ("m.safetensors", b"/not a path", "text"),
            ("x.ckpt", b"\xd8\x5e\x3a\x7f\0\0", "encrypted (GCM)"),
            ("s.ckpt", b"\x08\x01\x1a\x08\x0a\x02w1\x12\x02", "strategy"),
        ];
        for (name, bytes, words) in cases {
            let message = of_file(name, bytes);
            assert!(message.contains(words), "{name}: {words}: {message}");
        }
        for bytes in [
            &b"\x05\0\0\0\0\0\0\0{}   "[..],
            b"\xff\xfe\x01\x02",
            b"\x80\x02\0\0\0\0\0\0[",
        ] {
            assert_eq!(of_file("m.safetensors", bytes), "", "{bytes:?}");
        }
    }

    #[test]
    fn tells_directories_by_what_is_in_them() {
        let cases: [(&[&str], &str); 6] = [
            (&[".metadata", "__0_0.distcp"], "distributed checkpoint"),
            (&["iter_0000012/", "iter_0000012/mp_rank_00/"], "Megatron"),
            (
                &[
                    "latest",
                    "global_step2/",
                    "global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt",
                ],
                "DeepSpeed",
            ),
            (&["m-Q4_K_M.gguf"], "GGUF"),
            (&["model.h5"], "HDF5"),
            (&["rank_8", "rank_9"], "rank_8 is a file"),
        ];
        for (entries, words) in cases {
            let message = of_directory(entries);
            assert!(message.contains(words), "{entries:?}: {words}: {message}");
        }
        assert_eq!(of_directory(&["config.json", "notes.txt"]), "");
    }
}
