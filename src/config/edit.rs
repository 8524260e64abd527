//! Sets keys of a YAML file and leaves every other byte as it is, comments too.

use std::fmt::Write;

/// `text` with each top-level `key` set to `value` (as YAML), in place or at the end.
#[must_use]
pub fn set_keys(text: &str, keys: &[(&str, String)]) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let end = match lines.first() {
        Some(first) if first.ends_with("\r\n") => "\r\n",
        _ => "\n",
    };
    let mut out = String::with_capacity(text.len() + 256);
    let mut set = vec![false; keys.len()];
    let mut index = 0;
    while let Some(whole) = lines.get(index) {
        index += 1;
        let line = whole.trim_end_matches(['\r', '\n']);
        let found = keys.iter().position(|(key, _)| is_key(line, key));
        let Some((place, (key, value))) = found.and_then(|place| Some((place, keys.get(place)?)))
        else {
            out.push_str(whole);
            continue;
        };
        set[place] = true;
        let comment = line.find(" #").map_or("", |at| {
            // With the spaces before it.
            &line[line[..at].trim_end().len()..]
        });
        let _ = write!(out, "{key}: {value}{comment}{}", &whole[line.len()..]);
        // What continues the old value goes with it.
        while lines.get(index).is_some_and(|next| {
            next.starts_with([' ', '\t'])
                && !next.trim().is_empty()
                && !next.trim().starts_with('#')
        }) {
            index += 1;
        }
    }
    for ((key, value), _) in keys.iter().zip(set).filter(|(_, set)| !set) {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push_str(end);
        }
        let _ = write!(out, "{key}: {value}{end}");
    }
    out
}

fn is_key(line: &str, key: &str) -> bool {
    let rest = line.strip_prefix(key);
    rest.and_then(|rest| rest.trim_start().strip_prefix(':'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// A text as a YAML scalar in single quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P143
    #[test]
    fn changes_what_it_is_asked_to_and_nothing_else() {
        let text = "# all\nload_checkpoint: ''  # here\nmodel:\n  load_checkpoint: x\nsrc: >\n  a\n  b\nz: 1\n";
        let set = [
            ("load_checkpoint", quoted("/a's")),
            ("src", quoted("")),
            ("auto_trans_ckpt", "False".to_owned()),
        ];
        assert_eq!(
            set_keys(text, &set),
            "# all\nload_checkpoint: '/a''s'  # here\nmodel:\n  load_checkpoint: x\nsrc: ''\nz: 1\nauto_trans_ckpt: False\n"
        );
        // Ends of lines are those of the file, the last line's too.
        let windows = "a: 1\r\nsrc: x\r\n# b\r\nload_checkpoint: y";
        assert_eq!(
            set_keys(windows, &set),
            "a: 1\r\nsrc: ''\r\n# b\r\nload_checkpoint: '/a''s'\r\nauto_trans_ckpt: False\r\n"
        );
        assert_eq!(set_keys("src: x", &set[1..2]), "src: ''");
    }
}
