//! Words of the inside that a user isn't told: in what the source prints, in help, in the docs for users.

/// Each as a whole word, in small letters; plurals too.
const INSIDE: [&str; 6] = ["cell", "slab", "world", "leftover", "holder", "site"];

/// The word of the inside that is in a text, if there is one.
pub(crate) fn inside(text: &str) -> Option<&'static str> {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.find_map(|word| {
        let one = word.strip_suffix('s').unwrap_or(word);
        INSIDE.into_iter().find(|inside| *inside == one)
    })
}

/// The texts in quotation marks of a source file before its tests, with their lines; what stands in braces is
/// left out. And the texts that become help: comments with three strokes, where `help` says so.
pub(crate) fn texts(source: &str, help: bool) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut text: Option<String> = None;
    let (mut braces, mut escaped) = (0, false);
    for (number, line) in source.lines().enumerate() {
        let code = line.trim_start();
        if text.is_none() && code.starts_with("//") {
            if let Some(comment) = code.strip_prefix("///").filter(|_| help) {
                found.push((number + 1, comment.to_owned()));
            }
            continue;
        }
        let letters: Vec<char> = line.chars().collect();
        for (place, letter) in letters.iter().enumerate() {
            let quoted =
                place > 0 && letters[place - 1] == '\'' && letters.get(place + 1) == Some(&'\'');
            match (&mut text, letter) {
                (None, '"') if !quoted => text = Some(String::new()),
                (None, _) => {}
                (Some(_), _) if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(_), '"') => {
                    found.push((number + 1, text.take().unwrap_or_default()));
                    braces = 0;
                }
                (Some(_), '{') => braces += 1,
                (Some(_), '}') => braces -= 1,
                (Some(text), letter) if braces <= 0 => text.push(*letter),
                _ => {}
            }
        }
        escaped = false;
        if let Some(text) = &mut text {
            text.push(' ');
        }
    }
    found
}
