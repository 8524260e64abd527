//! Flags whose value is one of a few words.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A word for the command line, what it stands for, and what `--help` says of it.
pub(crate) type Choice<T> = (&'static str, T, &'static str);

/// Reads one of the words of a table; `--help` lists them.
pub(crate) fn choice<T: Clone + Send + Sync>(
    table: &'static [Choice<T>],
) -> impl TypedValueParser<Value = T> {
    let words = table.iter().map(|(word, _, help)| {
        let value = PossibleValue::new(*word);
        if help.is_empty() {
            value
        } else {
            value.help(*help)
        }
    });
    PossibleValuesParser::new(words.collect::<Vec<_>>()).try_map(|text| {
        let found = table.iter().find(|(word, _, _)| *word == text);
        found
            .map(|(_, value, _)| value.clone())
            .ok_or("is none of the words")
    })
}
