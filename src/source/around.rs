//! Names that differ in a number.

/// What is before and after the first number in a name, and that number.
pub(super) fn around_number(name: &str) -> Option<((&str, &str), u32)> {
    let begin = name.find(|c: char| c.is_ascii_digit())?;
    let (number, after) = leading_number(&name[begin..])?;
    Some(((&name[..begin], after), number))
}

/// The number that a text begins with, and the rest.
pub(super) fn leading_number(text: &str) -> Option<(u32, &str)> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    Some((text[..text.len() - after.len()].parse().ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_counts() {
        assert_eq!(
            around_number("rank_12_of_4"),
            Some((("rank_", "_of_4"), 12))
        );
        assert_eq!(around_number("7"), Some((("", ""), 7)));
        assert_eq!(around_number("ranks"), None);
        assert_eq!(around_number("r99999999999"), None);
        assert_eq!(leading_number("x1"), None);
    }
}
