//! The numbers of a model: config.json by the names that a family's table gives them.

use crate::fault::{Fault, Kind, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Names may refer to names this deep.
const DEPTH_MAX: u32 = 16;

/// A model's numbers: those its family's table defines, and those of its config.json.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    defined: BTreeMap<String, String>,
    config: Map<String, Value>,
}

impl Numbers {
    /// The numbers of a config.json, with a table's definitions before them.
    #[must_use]
    pub fn new(defined: &BTreeMap<String, String>, config: &Map<String, Value>) -> Self {
        Numbers {
            defined: defined.clone(),
            config: config
                .iter()
                .map(|(key, value)| (key.clone(), whole(value)))
                .collect(),
        }
    }

    /// The value of an expression: names, integers, `+ - * / ( )`, and `|` between alternatives of
    /// which the first is taken whose names are all known.
    ///
    /// Example: `head_dim | hidden_size / num_attention_heads`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if no alternative has a value.
    pub fn value(&self, expression: &str) -> Result<u64> {
        self.alternatives(expression, 0, "")
    }

    /// These, with a key that is true or not whatever config.json says.
    #[must_use]
    pub(super) fn with(mut self, key: &str, set: bool) -> Self {
        self.config.insert(key.to_owned(), Value::Bool(set));
        self
    }

    /// Whether all conditions hold that `&` joins: a name that is true, not zero or not empty; `!name` the
    /// other way.
    #[must_use]
    pub fn holds(&self, condition: &str) -> bool {
        condition.split('&').all(|term| self.is_set(term.trim()))
    }

    fn is_set(&self, condition: &str) -> bool {
        if let Some(name) = condition.strip_prefix('!') {
            return !self.is_set(name);
        }
        let (name, default) = match condition.split_once('|') {
            Some((name, default)) => (name.trim(), default.trim() == "true"),
            None => (condition, false),
        };
        match self.config.get(name) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(Value::Number(number)) => number.as_u64() != Some(0),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        }
    }

    /// The integers of a list; empty if there is none.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<u64> {
        let list = self.config.get(name).and_then(Value::as_array);
        let numbers = list.into_iter().flatten().filter_map(Value::as_u64);
        numbers.collect()
    }

    /// What config.json has under `key`.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&Value> {
        self.config.get(key)
    }

    fn alternatives(&self, expression: &str, depth: u32, own: &str) -> Result<u64> {
        let mut first = None;
        for alternative in expression.split('|') {
            let mut reader = Reader {
                numbers: self,
                rest: alternative,
                depth,
                own,
            };
            match reader.whole() {
                Ok(value) => return Ok(value),
                Err(why) => first.get_or_insert(why),
            };
        }
        let why = first.unwrap_or_default();
        Err(Fault::new(Kind::Corrupt, format!("'{expression}': {why}"))
            .hint("the model's config.json and the family's table must fit each other"))
    }

    /// A name's value. In its own definition (`own`) a name means config.json's key.
    fn name(&self, name: &str, depth: u32, own: &str) -> std::result::Result<u64, String> {
        if depth > DEPTH_MAX {
            return Err(format!("'{name}' is defined by itself"));
        }
        if let Some(expression) = self.defined.get(name).filter(|_| name != own) {
            let value = self.alternatives(expression, depth + 1, name);
            return value.map_err(|fault| fault.message);
        }
        match self.config.get(name) {
            Some(value) => value.as_u64().ok_or_else(|| match value {
                // As it is read.
                Value::Null => format!("config.json's '{name}' is null, or NaN or Infinity"),
                value => format!("config.json's '{name}' is {value}, no whole number"),
            }),
            None => Err(format!("config.json has no '{name}'")),
        }
    }
}

/// A value in which whole numbers are integers, as `64.0` is 64.
#[allow(
    clippy::cast_possible_truncation,
    reason = "whole, and below what floats have gaps from"
)]
fn whole(value: &Value) -> Value {
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Array(list) => list.iter().map(whole).collect(),
        Value::Number(number) if !(number.is_u64() || number.is_i64()) => {
            let float = number.as_f64();
            let float = float.filter(|float| float.fract() == 0.0 && float.abs() < EXACT_BELOW);
            float.map_or_else(|| value.clone(), |float| Value::from(float as i64))
        }
        _ => value.clone(),
    }
}

struct Reader<'a> {
    numbers: &'a Numbers,
    rest: &'a str,
    depth: u32,
    own: &'a str,
}

type Read = std::result::Result<u64, String>;

impl Reader<'_> {
    fn whole(&mut self) -> Read {
        let value = self.sum()?;
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(format!("'{}' is left over", self.rest)),
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        if self.peek() != Some(wanted) {
            return false;
        }
        self.rest = &self.rest[wanted.len_utf8()..];
        true
    }

    fn sum(&mut self) -> Read {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value = checked(value.checked_add(self.product()?))?;
            } else if self.take('-') {
                value = checked(value.checked_sub(self.product()?))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Read {
        let mut value = self.term()?;
        loop {
            if self.take('*') {
                value = checked(value.checked_mul(self.term()?))?;
            } else if self.take('/') {
                let divisor = self.term()?;
                if divisor == 0 || !value.is_multiple_of(divisor) {
                    return Err(format!("{value} is no multiple of {divisor}"));
                }
                value /= divisor;
            } else {
                return Ok(value);
            }
        }
    }

    fn term(&mut self) -> Read {
        if self.take('(') {
            let value = self.sum()?;
            return if self.take(')') {
                Ok(value)
            } else {
                Err("a ')' is missing".into())
            };
        }
        self.peek();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() {
            return Err("a name or number is missing".into());
        }
        match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => self.numbers.name(word, self.depth, self.own),
        }
    }
}

fn checked(value: Option<u64>) -> Read {
    value.ok_or_else(|| "the result is out of range".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let config = serde_json::json!({
            "a": 64.0, "b": [0.0, 1], "c": 0.0, "d": 1.5, "e": -1.0
        });
        let numbers = Numbers::new(&BTreeMap::new(), config.as_object().unwrap());
        assert_eq!(numbers.value("a / 2"), Ok(32));
        assert_eq!(numbers.list("b"), [0, 1]);
        assert!(!numbers.holds("c") && numbers.holds("d"));
        for none in ["d", "e"] {
            assert!(numbers.value(none).is_err(), "{none}");
        }
    }

    #[test]
    fn takes_the_first_alternative_that_is_known() {
        let config = serde_json::json!({"hidden_size": 12, "heads": 4, "empty": null, "on": true});
        let defined = BTreeMap::from([
            ("d".into(), "head_dim | hidden_size / heads".into()),
            ("loop".into(), "pool + 1".into()),
            ("pool".into(), "loop".into()),
            ("heads".into(), "heads | 9".into()),
        ]);
        let numbers = Numbers::new(&defined, config.as_object().unwrap());
        assert_eq!(numbers.value("heads * (d + 2) - 1"), Ok(19));
        assert_eq!(numbers.value("empty | 7"), Ok(7));
        for bad in [
            "loop",
            "heads *",
            "(heads",
            "heads heads",
            "hidden_size / 5",
            "1 - 2",
            "",
            "x",
        ] {
            assert_eq!(numbers.value(bad).unwrap_err().kind, Kind::Corrupt, "{bad}");
        }
        assert!(numbers.holds("on") && numbers.holds("!empty") && !numbers.holds("absent"));
        assert!(numbers.holds("on & !empty") && !numbers.holds("on & absent"));
        assert!(!numbers.with("on", false).holds("on"));
    }
}
