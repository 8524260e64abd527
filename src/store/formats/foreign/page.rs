//! Texts that were saved where weights were meant.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start, never};

/// A web page, or an XML answer: what a server says in place of a file.
pub(in crate::store::formats) static HTML: Foreign = Foreign {
    name: "web pages",
    kind: Kind::Corrupt,
    file: |start| {
        let text = start.text()?.get(..5)?.to_ascii_lowercase();
        let ours = ["<!doc", "<html", "<?xml", "<head", "<!-- "].contains(&text.as_str());
        ours.then(|| "is a web page (HTML) in place of weights".into())
    },
    directory: never,
    hint: "the download was answered with a page: log in or check the address, and download it \
           again",
};

/// JSON.
pub(in crate::store::formats) static JSON: Foreign = Foreign {
    name: "JSON in place of weights",
    kind: Kind::Unsupported,
    file: |start| {
        let ours = start.text()?.starts_with(['{', '[']);
        ours.then(|| format!("is JSON text, no weights: {}", shown(start)))
    },
    directory: never,
    hint: "an index or a configuration goes with its directory: give that; an error that a \
           download has saved: download the file again",
};

/// Any other text.
pub(in crate::store::formats) static TEXT: Foreign = Foreign {
    name: "text in place of weights",
    kind: Kind::Unsupported,
    file: |start| {
        start.text()?;
        Some(format!("is a text, no weights: {}", shown(start)))
    },
    directory: never,
    hint: "read what it says: a download may have saved an error in place of the file",
};

/// The beginning of a text, on one line.
fn shown(start: &Start<'_>) -> String {
    const LETTERS: usize = 60;
    let words: Vec<&str> = start
        .text()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let text = words.join(" ");
    let cut: String = text.chars().take(LETTERS).collect();
    if cut.len() < text.len() {
        format!("{cut}…")
    } else {
        cut
    }
}
