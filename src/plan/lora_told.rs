//! What an adapter's configuration says that its file has.
//!
//! Which modules a training gives pairs is PEFT's rule (0.21): those whose name is, or ends in, one of
//! `target_modules`, or fits it whole if it is an expression; less `exclude_modules` and all of `modules_to_save`, of
//! the layers that `layers_to_transform` lists.

use regex_lite::Regex;

/// Where PEFT finds a layer's number, if it isn't told.
const NUMBERED: &str = r"^.*?\.[^.]*\.(\d+)\.";

/// Whether a name is, or ends in, one that a configuration says.
pub(super) fn is_called(name: &str, target: &str) -> bool {
    let rest = name.strip_suffix(target);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Modules that a configuration names.
#[derive(Clone, Debug)]
pub enum Modules {
    /// Those whose name is, or ends in, one of these.
    Ends(Vec<String>),
    /// Those whose name fits this.
    Fitting(Regex),
}

impl Modules {
    /// Those that fit `expression` whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn fitting(expression: &str) -> std::result::Result<Self, String> {
        let whole = Regex::new(&format!("^(?:{expression})$"));
        whole
            .map(Modules::Fitting)
            .map_err(|error| error.to_string())
    }

    pub(super) fn has(&self, module: &str) -> bool {
        match self {
            Modules::Ends(names) => names.iter().any(|name| is_called(module, name)),
            Modules::Fitting(expression) => expression.is_match(module),
        }
    }
}

/// Which biases were trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Biases {
    /// None.
    #[default]
    None,
    /// Those of modules with pairs.
    OfPairs,
    /// All.
    All,
}

/// What a configuration says that its adapter's file has.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Modules with pairs: what the configuration calls them, and them. None: it doesn't tell.
    pub targets: Vec<(String, Modules)>,
    /// Modules among these without.
    pub excluded: Option<Modules>,
    /// Ends of the names of modules that were trained in full.
    pub kept: Vec<String>,
    /// The layers with pairs; none: all.
    pub layers: Option<Vec<u64>>,
    /// What stands before a layer's number; none: anything.
    pub layer_names: Vec<Regex>,
    /// The biases that were trained.
    pub biases: Biases,
}

impl Told {
    /// Whether a module may have a pair, and isn't trained in full.
    pub(super) fn may_have(&self, module: &str) -> bool {
        let excluded = self.excluded.as_ref();
        let within = format!(".{module}.");
        let kept = |name: &String| within.contains(&format!(".{name}."));
        !excluded.is_some_and(|modules| modules.has(module)) && !self.kept.iter().any(kept)
    }

    /// Whether a module named by `called` is in one of the layers that have pairs. What is called by its whole name is.
    pub(super) fn is_in_layer(&self, called: &str, module: &str) -> bool {
        let Some(layers) = self.layers.as_ref().filter(|_| called != module) else {
            return true;
        };
        let number = |expression: &Regex| {
            let found = expression.captures(module)?.get(1)?;
            found.as_str().parse::<u64>().ok()
        };
        let any = || Regex::new(NUMBERED).ok().as_ref().and_then(number);
        let layer = match self.layer_names.is_empty() {
            true => any(),
            false => self.layer_names.iter().find_map(number),
        };
        layer.is_some_and(|layer| layers.contains(&layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_as_peft_finds_them() {
        let told = |names: &[&str]| Told {
            layers: Some(vec![1]),
            layer_names: names
                .iter()
                .map(|name| Regex::new(&format!(r"^(?:|.*?\.)(?:{name})\.(\d+)\.")).unwrap())
                .collect(),
            ..Told::default()
        };
        for (names, module, is_in) in [
            (&[][..], "model.layers.1.self_attn.q_proj", true),
            (&[], "model.layers.0.mlp.experts.1.w1", false),
            (&[], "model.layers.1.mlp.experts.0.w1", true),
            // What begins with the layers isn't found without their name.
            (&[], "layers.1.q_proj", false),
            (&["layers"], "layers.1.q_proj", true),
            (&["h"], "model.layers.1.q_proj", false),
            (&["h", "layers"], "model.layers.1.q_proj", true),
            (&[], "lm_head", false),
        ] {
            assert_eq!(
                told(names).is_in_layer("q_proj", module),
                is_in,
                "{names:?} {module}"
            );
        }
        assert!(told(&[]).is_in_layer("lm_head", "lm_head"));
    }
}
