//! The small JSON files beside weights, as they are found: written by Python, by Windows, or not
//! downloaded at all.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::{self, START_BYTES, Start};
use crate::store::io::{self, ReadFile, Standing};
use serde::de::DeserializeOwned;
use std::path::Path;

/// What editors of Windows put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What they put before a text of two bytes a character.
const WIDE_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// The bytes of its first character, of which one is zero where it has no such mark.
const WIDE: usize = 2;
/// What Python writes for numbers that JSON has no word for.
const NO_JSON: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads the JSON file at `path`, which is called `what` if it is none. `NaN` and `Infinity`, which
/// Python writes, count as null. Local.
///
/// # Errors
/// [`Kind::Corrupt`] naming the file and the line, or what lies in its place; [`Kind::MissingShard`]
/// for a link that leads nowhere; [`Kind::Io`].
pub fn read<T: DeserializeOwned>(path: &Path, limit_bytes: u64, what: &str) -> Result<T> {
    parse(&bytes(path, limit_bytes)?).map_err(|error| {
        let fault = Fault::new(Kind::Corrupt, format!("is no {what}: {error}"));
        let fault = fault.file(path.display().to_string());
        fault.hint("mend that place in an editor, or copy or download the file again")
    })
}

/// What a text of [`bytes`] says; `NaN` and `Infinity` count as null. Local.
///
/// # Errors
/// Where it is no JSON, or none of that kind.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).or_else(|error| {
        let plain = replaced(bytes, |_| "null".to_owned());
        plain.map_or(Err(error), |plain| serde_json::from_slice(&plain))
    })
}

/// The text of the small file at `path`, without a byte order mark. Local.
///
/// # Errors
/// As [`read`], but for what the text says.
pub fn bytes(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    refuse_dangling(path)?;
    let bytes = ReadFile::open(path)?.read_all(limit_bytes)?;
    refuse_pointer(path, &bytes)?;
    if bytes.is_empty() {
        let fault = Fault::new(Kind::Corrupt, "is an empty file");
        let fault = fault.file(path.display().to_string());
        return Err(
            fault.hint("was the download or the copy broken off? Copy or download it again")
        );
    }
    let marked = WIDE_MARKS.iter().any(|mark| bytes.starts_with(mark));
    if marked || bytes.iter().take(WIDE).any(|byte| *byte == 0) {
        let fault = Fault::new(
            Kind::Corrupt,
            "is a text in UTF-16, and has to be one in UTF-8",
        );
        let fault = fault.file(path.display().to_string());
        return Err(fault.hint("save it as UTF-8 (iconv -f UTF-16 -t UTF-8), or download it again"));
    }
    Ok(without_mark(bytes))
}

/// A text without the byte order mark that it may begin with, which other readers of JSON refuse.
#[must_use]
pub fn without_mark(bytes: Vec<u8>) -> Vec<u8> {
    match bytes.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => rest.to_vec(),
        None => bytes,
    }
}

/// Refuses a text that stands for a file: of Git LFS, or a link that a copy made a text. Local.
///
/// # Errors
/// [`Kind::Corrupt`] naming the file.
pub fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    let start = Start {
        name: "",
        size: bytes.len() as u64,
        bytes: &bytes[..bytes.len().min(START_BYTES)],
    };
    formats::refuse_pointer(&start).map_err(|fault| fault.file(path.display().to_string()))
}

/// Refuses a link that leads nowhere: of a cache, a download that isn't finished. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the link, [`Kind::Io`].
pub fn refuse_dangling(path: &Path) -> Result<()> {
    if io::standing(path)? != Standing::Nothing {
        return Ok(());
    }
    let Some(target) = io::link_target(path)? else {
        return Ok(());
    };
    let message = format!("is a link to {}, where nothing is", target.display());
    let fault = Fault::new(Kind::MissingShard, message).file(path.display().to_string());
    Err(fault.hint("was the download broken off, or the cache cleared? Download the file again"))
}

/// A JSON text edited: `change` is given what is parsed, and says whether it changed it. What Python
/// writes beyond JSON stays as it is. None if nothing changed, or if it is no JSON object. Local.
pub fn edited(
    bytes: &[u8],
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>) -> bool,
) -> Option<Vec<u8>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let marked = |word: &str| format!("\"\\u0001{word}\"");
    let plain = replaced(bytes, marked);
    let mut map = serde_json::from_slice(plain.as_deref().unwrap_or(bytes)).ok()?;
    if !change(&mut map) {
        return None;
    }
    let mut text = serde_json::to_string_pretty(&map).ok()?;
    for word in NO_JSON {
        text = text.replace(&marked(word), word);
    }
    Some(text.into_bytes())
}

/// The text with `by(word)` in place of each word that is no JSON; none if it has none.
fn replaced(bytes: &[u8], by: impl Fn(&str) -> String) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut changed) = (bytes, false);
    while let Some(first) = rest.first() {
        if *first == b'"' {
            let length = text_length(rest);
            out.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        } else if let Some(word) = NO_JSON.iter().find(|w| rest.starts_with(w.as_bytes())) {
            out.extend(by(word).into_bytes());
            rest = &rest[word.len()..];
            changed = true;
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    changed.then_some(out)
}

/// Bytes of the quoted text that `bytes` begin with.
fn text_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_python_writes_and_leaves_texts_alone() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity"}"#;
        let plain = replaced(text, |_| "null".to_owned()).unwrap();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            r#"{"a": null, "b": [null, null], "c": "NaN \" Infinity"}"#
        );
        assert_eq!(replaced(br#"{"a": "NaN"}"#, |_| String::new()), None);
        let edited = edited(text, |map| map.insert("d".into(), 1.into()).is_none()).unwrap();
        let edited = String::from_utf8(edited).unwrap();
        for kept in [
            "\"a\": NaN,",
            "-Infinity,",
            "\"NaN \\\" Infinity\"",
            "\"d\": 1",
        ] {
            assert!(edited.contains(kept), "{kept}: {edited}");
        }
    }
}
