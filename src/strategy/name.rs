//! Names: `<stage>-<parameter>` in strategy files, the order of file names, globs.

use std::cmp::Ordering;

/// Splits the name of a merged file's entry into stage and parameter.
///
/// Only digits before the first `-` make a stage, so `my-w` is a parameter of an unmerged file and
/// `0-my-w` is `my-w` in stage 0. MindSpore 2.10 refuses both; see docs/formats.md.
#[must_use]
pub fn split_stage(name: &str) -> (Option<u32>, &str) {
    let Some((stage, rest)) = name.split_once('-') else {
        return (None, name);
    };
    if rest.is_empty() || stage.is_empty() || !stage.bytes().all(|byte| byte.is_ascii_digit()) {
        return (None, name);
    }
    match stage.parse() {
        Ok(stage) => (Some(stage), rest),
        Err(_) => (None, name),
    }
}

/// Compares names with the numbers in them by value: `rank_2` comes before `rank_10`.
#[must_use]
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (take_number(&mut left), take_number(&mut right));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// Whether `name` matches `glob`: `*` is any text, `?` any one character.
#[must_use]
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    // Where to go on if the text after the last star doesn't match here.
    let mut retry = None;
    while n < name.len() {
        if g < glob.len() && glob[g] == '*' {
            retry = Some((g + 1, n + 1));
            g += 1;
        } else if g < glob.len() && (glob[g] == '?' || glob[g] == name[n]) {
            (g, n) = (g + 1, n + 1);
        } else if let Some((after, next)) = retry {
            (g, n) = (after, next);
            retry = Some((after, next + 1));
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

/// Takes the digits at the start of `text`, without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    let (mut digits, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    while let [b'0', shorter @ ..] = digits {
        digits = shorter;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_make_a_stage() {
        assert_eq!(split_stage("1-w"), (Some(1), "w"));
        assert_eq!(split_stage("0-my-w"), (Some(0), "my-w"));
        for name in ["w", "my-w", "-w", "1.5-w", "99999999999-w", "0-"] {
            assert_eq!(split_stage(name), (None, name));
        }
    }

    #[test]
    fn numbers_in_names_count_by_value() {
        let mut names = ["r_10", "r_2", "r_02", "r", "r_2b", "q_99999999999999999999"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["q_99999999999999999999", "r", "r_02", "r_2", "r_2b", "r_10"]
        );
    }

    #[test]
    fn stars_and_question_marks_match() {
        for (glob, name, expected) in [
            ("*", "", true),
            ("*.wq.*", "a.wq.weight", true),
            ("*a*b", "aab", true),
            ("*a*b", "aba", false),
            ("l?", "l", false),
            ("l?.w", "l1.w", true),
            ("w", "ww", false),
            ("**", "anything", true),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }
}
