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

/// So many ranks: `8 ranks in 2 stages`.
#[must_use]
pub fn in_stages(ranks: u32, stages: u32) -> String {
    let ranks = counted(ranks.into(), "rank");
    match stages {
        1 => ranks,
        stages => format!("{ranks} in {stages} stages"),
    }
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

/// Most signs of a name that people are shown, and how many of them are its last.
const SHOWN: (usize, usize) = (200, 60);

/// A name as people are shown it: of a very long one the begin and the end.
#[must_use]
pub fn short(text: &str) -> Cow<'_, str> {
    let (most, last) = SHOWN;
    let count = text.chars().count();
    if count <= most {
        return Cow::Borrowed(text);
    }
    let begin = text.chars().take(most - last);
    let end = text.chars().skip(count - last);
    Cow::Owned(begin.chain(std::iter::once('…')).chain(end).collect())
}

/// Several lines of the program's own, about words that were `typed`: whatever those hold, each stays in
/// its line.
#[must_use]
pub fn lines<'t>(text: &'t str, typed: &[String]) -> Cow<'t, str> {
    let values = typed
        .iter()
        .filter_map(|word| Some(word.split_once('=')?.1));
    let words = typed.iter().map(String::as_str).chain(values);
    let ended = words.filter(|word| word.contains('\n'));
    let safe = ended.fold(Cow::Borrowed(text), |text, word| {
        Cow::Owned(text.replace(word, &line(word)))
    });
    match escaped(&safe, |c| c == '\n') {
        Cow::Borrowed(_) => safe,
        Cow::Owned(escaped) => Cow::Owned(escaped),
    }
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

    /// A text that is part of the program, with its lines.
    #[must_use]
    pub fn own(text: &'static str) -> Text {
        let mut own = Text::default();
        text.trim_end().lines().for_each(|line| own.line(line));
        own
    }

    /// Adds a line.
    pub fn line(&mut self, next: impl Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.add(next);
    }

    /// Goes on with the last line.
    pub fn add(&mut self, more: impl Display) {
        self.0.push_str(&line(&more.to_string()));
    }

    /// Adds the lines of another.
    pub fn append(&mut self, other: &Text) {
        other.0.lines().for_each(|line| self.line(line));
    }

    /// Its lines, cut to so many columns but for those that are `whole`.
    #[must_use]
    pub fn cut(&self, columns: usize, whole: impl Fn(&str) -> bool) -> Text {
        let mut cut = Text::default();
        for row in self.0.lines() {
            if whole(row) || row.chars().count() <= columns {
                cut.line(row);
            } else {
                let kept: String = row.chars().take(columns.saturating_sub(1)).collect();
                cut.line(format_args!("{kept}…"));
            }
        }
        cut
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

    // proves P62
    #[test]
    fn nothing_that_acts_passes() {
        let name = "a\u{1b}[2J\u{7}\nb\u{85}\u{7f}\u{202e}c\td\u{9b}";
        let safe = "a\\u{1b}[2J\\u{7}\\nb\\u{85}\\u{7f}\\u{202e}c\\td\\u{9b}";
        assert_eq!(line(name), safe);
        assert_eq!(lines("a\nb\u{1b}", &[]), "a\nb\\u{1b}");
        let typed = ["--dst=c\nd".to_owned()];
        assert_eq!(lines("a\nb c\nd", &typed), "a\nb c\\nd");
        assert_eq!(line("層.权重 ü…"), "層.权重 ü…");
        let mut told = Text::new(name);
        told.add(name);
        told.line(name);
        assert_eq!(told.as_str(), format!("{safe}{safe}\n{safe}"));
        let text = serde_json::json!({ "n": name }).to_string();
        let value: serde_json::Value = serde_json::from_str(&json(&text)).unwrap();
        assert_eq!(value["n"], name);
        assert!(!json(&text).chars().any(acts));
        let mut log = Log(Vec::new());
        log.write_all(b"WARN a\x1b\nb\n").unwrap();
        assert_eq!(log.0, b"WARN a\\u{1b}\\nb\n");
    }
}
