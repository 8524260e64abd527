//! Maps of names in which each name must stand once: of two that disagree neither may count in silence.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A map whose text has each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Once<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Once<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Reads the entries one by one.
struct Entries<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
    type Value = Once<V>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Once<V>, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, V>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("'{key}' stands in it twice")));
            }
            map.insert(key, value);
        }
        Ok(Once(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P59
    #[test]
    fn a_key_that_stands_twice_is_an_error() {
        let read = |text: &str| serde_json::from_str::<Once<u64>>(text);
        assert_eq!(read(r#"{"a": 1, "b": 2}"#).unwrap().0.len(), 2);
        let twice = read(r#"{"a": 1, "b": 2, "a": 1}"#).unwrap_err();
        assert!(
            twice.to_string().contains("'a' stands in it twice"),
            "{twice}"
        );
    }
}
