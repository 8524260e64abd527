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
        let null = |word: &str| NO_JSON.contains(&word).then(|| "null".to_owned());
        let plain = replaced(bytes, null);
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
/// writes beyond JSON stays as it is, as do numbers that would be written otherwise: `change` sees texts. None if nothing changed, or if it is no JSON object. Local.
pub fn edited(
    bytes: &[u8],
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>) -> bool,
) -> Option<Vec<u8>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let plain = replaced(bytes, |word| {
        let same = |number: serde_json::Number| number.to_string() == word;
        let kept = serde_json::from_str(word).is_ok_and(same);
        (!kept).then(|| format!("{MARK}{word}\""))
    });
    let mut map = serde_json::from_slice(plain.as_deref().unwrap_or(bytes)).ok()?;
    if !change(&mut map) {
        return None;
    }
    let text = serde_json::to_string_pretty(&map).ok()?;
    let mut parts = text.split(MARK);
    let mut edited = parts.next()?.to_owned();
    for part in parts {
        let (word, rest) = part.split_once('"')?;
        edited.extend([word, rest]);
    }
    Some(edited.into_bytes())
}

/// The beginning of a text that stands for a word which isn't understood.
const MARK: &str = "\"\\u0001";

/// The text with what `by` gives in place of numbers, and of words that are no JSON; none if it gives nothing for any.
fn replaced(bytes: &[u8], by: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut changed) = (bytes, false);
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => text_length(rest),
            _ => word_length(rest),
        };
        let (word, after) = rest.split_at(length.max(1));
        let other = std::str::from_utf8(word).ok();
        let other = other.filter(|_| *first != b'"' && length > 0).and_then(&by);
        changed |= other.is_some();
        out.extend_from_slice(other.as_deref().map_or(word, str::as_bytes));
        rest = after;
    }
    changed.then_some(out)
}

/// Bytes of the number, or of the word that is no JSON, that `bytes` begin with; 0 if they begin with neither.
fn word_length(bytes: &[u8]) -> usize {
    let word = NO_JSON
        .iter()
        .find(|word| bytes.starts_with(word.as_bytes()));
    let is_number = bytes
        .first()
        .is_some_and(|first| first.is_ascii_digit() || *first == b'-');
    let in_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    match word {
        Some(word) => word.len(),
        None if is_number => bytes.iter().take_while(in_number).count(),
        None => 0,
    }
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
        let null = |word: &str| NO_JSON.contains(&word).then(|| "null".to_owned());
        let plain = replaced(text, null).unwrap();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            r#"{"a": null, "b": [null, null], "c": "NaN \" Infinity"}"#
        );
        assert_eq!(replaced(br#"{"a": "NaN"}"#, null), None);
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

    #[test]
    fn numbers_stay_as_they_were_written() {
        let numbers = "[12345678901234567890123, 1e-06, -0.10, 3, 2.5, 1E5]";
        let text = format!("{{\"a\": {numbers}, \"b\": 1}}");
        let edited = edited(text.as_bytes(), |map| {
            map.insert("b".into(), 2.into()) == Some(1.into())
        });
        let edited = String::from_utf8(edited.unwrap()).unwrap();
        let plain: String = edited.split_whitespace().collect();
        let numbers: String = numbers.split_whitespace().collect();
        assert_eq!(plain, format!("{{\"a\":{numbers},\"b\":2}}"));
    }
}
