//! Where in a model a family's rules are spelled out.

use super::expression::Numbers;
use super::family::Within;
use std::borrow::Cow;

/// Where a rule is spelled out.
pub(super) struct Spot<'a> {
    pub(super) layer: u64,
    pub(super) mtp: Option<u64>,
    pub(super) moe: bool,
    /// The model's numbers, and which kinds of layers this one is of.
    pub(super) numbers: Cow<'a, Numbers>,
    /// Beginning of the names at Hugging Face.
    pub(super) hf: &'a str,
    /// Beginning of the names at MindSpore; none: it has none.
    pub(super) ms: Option<&'a str>,
}

impl<'a> Spot<'a> {
    /// Outside of all layers.
    pub(super) fn nowhere(numbers: &'a Numbers) -> Spot<'a> {
        Spot {
            layer: 0,
            mtp: None,
            moe: false,
            numbers: Cow::Borrowed(numbers),
            hf: "",
            ms: Some(""),
        }
    }

    pub(super) fn is_within(&self, within: Within) -> bool {
        match within {
            Within::Layer => true,
            Within::Dense => !self.moe,
            Within::Moe => self.moe,
            Within::Mtp => self.mtp.is_some(),
        }
    }

    /// A name; one that begins with a dot follows `prefix`.
    pub(super) fn spell(&self, prefix: &str, pattern: &str) -> String {
        let mut name = String::new();
        if pattern.starts_with('.') {
            name.push_str(prefix);
        }
        name.push_str(pattern);
        name.replace("{layer}", &self.layer.to_string())
            .replace("{mtp}", &self.mtp.unwrap_or_default().to_string())
    }
}
