//! What is said of a text that is no YAML.

use crate::fault::{Fault, Kind};

/// What is wrong with a text that is no YAML, or has a value of the wrong type.
pub(super) fn no_yaml(error: &serde_saphyr::Error) -> Fault {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("is no YAML").trim_start_matches("error: ");
    // What the parser says to programs.
    for (theirs, ours) in PARSERS {
        if let Some((before, _)) = line.split_once(theirs) {
            return Fault::new(Kind::Config, format!("{before}{ours}"));
        }
    }
    Fault::new(Kind::Config, line)
}

/// Words of the parser, to the line's end, and what is said in their place.
const PARSERS: [(&str, &str); 5] = [
    (
        "multiple YAML documents detected",
        "a second document begins here: a configuration is one",
    ),
    ("invalid u64", "is no whole number"),
    (", set DuplicateKeyPolicy", ""),
    (
        "recursive references require",
        "an anchor stands for something that it is in",
    ),
    (
        "budget breached",
        "has more in it than any configuration, or repeats it by anchors",
    ),
];

#[cfg(test)]
mod tests {
    use crate::config::train_yaml::TrainConfig;

    #[test]
    fn what_is_no_yaml_is_told_to_people() {
        for (text, told) in [
            ("a: 1\na: 2\n", "duplicate mapping key: a"),
            ("a: &a\n  b: *a\n", "an anchor stands for something"),
            ("a: 1\n---\na: 2\n", "a second document begins here"),
        ] {
            let fault = TrainConfig::parse(text).expect_err(text);
            assert!(fault.message.contains(told), "{fault}");
            assert!(!fault.message.contains("Options"), "{fault}");
        }
    }
}
