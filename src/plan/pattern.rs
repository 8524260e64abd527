//! Regular expressions for the names of modules, in their order: the first that matches counts.

use regex_lite::Regex;

/// What Python's expressions read otherwise: quantifiers that give nothing back, classes of POSIX, ends of words.
const FOREIGN: [&str; 9] = ["*+", "++", "?+", "}+", "[[:", "[:^", r"\<", r"\>", r"\b{"];

/// A regular expression for the end of a module's name, and what it stands for.
#[derive(Clone, Debug)]
pub struct Pattern<T> {
    expression: Regex,
    value: T,
}

impl<T> Pattern<T> {
    /// `key`, as PEFT takes it: after any beginning of the name that ends in a dot, up to its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(key: &str, value: T) -> std::result::Result<Self, String> {
        if let Some(foreign) = FOREIGN.iter().find(|foreign| key.contains(**foreign)) {
            return Err(format!("'{foreign}' means something else in Python"));
        }
        let expression = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"));
        let expression = expression.map_err(|error| error.to_string())?;
        Ok(Pattern { expression, value })
    }
}

/// Patterns, the first of which counts that matches.
#[derive(Clone, Debug)]
pub struct Patterns<T>(pub Vec<Pattern<T>>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Patterns(Vec::new())
    }
}

impl<T: Copy> Patterns<T> {
    /// What `module` has.
    #[must_use]
    pub fn of(&self, module: &str) -> Option<T> {
        let mut matching = self.0.iter().filter(|p| p.expression.is_match(module));
        matching.next().map(|pattern| pattern.value)
    }
}
