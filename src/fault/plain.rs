//! Text that may hold names from files, made safe for terminals and logs.
//!
//! What moves a cursor, changes a colour or turns the direction of writing is shown as Rust would
//! write it in a string: `\u{1b}`. All that is printed passes here.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

/// Whether a character does something else than show.
fn acts(c: char) -> bool {
    let turns =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    c.is_control() || turns || matches!(c, '\u{61c}' | '\u{feff}')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && !stays(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if stays(c) || !acts(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// A count with its noun: `1 rank`, `2 ranks`, `3 processes`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    let ending = match (count, noun) {
        (1, _) => "",
        (_, noun) if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

/// The first `most` of some names, and how many more there are: `a, b and 3 more`.
#[must_use]
pub fn first<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let told: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    let told = told.join(", ");
    match names.len().saturating_sub(most) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// One line: a name, a message.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Several lines, whose names have passed [`line()`].
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// JSON: such characters stand in its strings only, where it has an escape of its own.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) && c != '\n' {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// A result for people, line by line: whatever a name holds, it stays in its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// A text of one line.
    #[must_use]
    pub fn new(first: impl Display) -> Text {
        let mut text = Text::default();
        text.line(first);
        text
    }

    /// Several lines, whose names have passed [`line()`].
    #[must_use]
    pub fn of_lines(made: &str) -> Text {
        Text(lines(made.trim_end()).into_owned())
    }

    /// Adds a line.
    pub fn line(&mut self, next: impl Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&line(&next.to_string()));
    }

    /// All lines, without the end of the last.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A writer of whole lines, each written at once: a log.
#[derive(Debug)]
pub struct Log<W>(pub W);

impl<W: Write> Write for Log<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |t| (t, "\n"));
        self.0.write_all(line(body).as_bytes())?;
        self.0.write_all(end.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_passes() {
        let name = "a\u{1b}[2J\u{7}\nb\u{85}\u{7f}\u{202e}c\td\u{9b}";
        let safe = "a\\u{1b}[2J\\u{7}\\nb\\u{85}\\u{7f}\\u{202e}c\\td\\u{9b}";
        assert_eq!(line(name), safe);
        assert_eq!(lines("a\nb\u{1b}"), "a\nb\\u{1b}");
        assert_eq!(line("層.权重 ü…"), "層.权重 ü…");
        let text = serde_json::json!({ "n": name }).to_string();
        let value: serde_json::Value = serde_json::from_str(&json(&text)).unwrap();
        assert_eq!(value["n"], name);
        assert!(!json(&text).chars().any(acts));
        let mut log = Log(Vec::new());
        log.write_all(b"WARN a\x1b\nb\n").unwrap();
        assert_eq!(log.0, b"WARN a\\u{1b}\\nb\n");
    }
}
