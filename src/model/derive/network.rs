//! The tensors of a training network: a family's table spelled out for one job.

use super::conditions::hold;
use crate::fault::{Fault, Kind, Result};
use crate::model::choices::Scheme;
use crate::model::expression::Numbers;
use crate::model::family::{Block, Family, Make, Rule, Side, Within};
use crate::model::training::{Cut, Trained, Training};
use std::borrow::Cow;

/// A tensor of the network.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// Full shape.
    pub(super) shape: Vec<u64>,
    /// The table's expressions for it, for what is said of it.
    pub(super) sizes: Vec<String>,
    pub(super) cut: Cut,
    pub(super) trained: bool,
    pub(super) muon_keeps_whole: bool,
    pub(super) place: Place,
}

/// Where in the pipeline a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Layer(u64),
    Last,
}

/// A spot where rules are spelled out.
struct Spot<'a> {
    prefix: String,
    layer: u64,
    mtp: Option<u64>,
    moe: bool,
    block: Option<&'a Block>,
}

impl Spot<'_> {
    fn has(&self, within: Option<Within>) -> bool {
        match within {
            None => self.block.is_none(),
            Some(_) if self.block.is_none() => false,
            Some(Within::Layer) => true,
            Some(Within::Dense) => !self.moe,
            Some(Within::Moe) => self.moe,
            Some(Within::Mtp) => self.mtp.is_some(),
        }
    }

    fn spell(&self, pattern: &str) -> String {
        let prefix = if pattern.starts_with('.') {
            &*self.prefix
        } else {
            ""
        };
        format!("{prefix}{pattern}")
            .replace("{layer}", &self.layer.to_string())
            .replace("{mtp}", &self.mtp.unwrap_or_default().to_string())
    }

    fn place(&self, cut: Cut, names: Scheme, layers: u64) -> Place {
        match (self.block, cut) {
            (Some(_), _) if self.mtp.is_some() => Place::Last,
            (Some(_), _) => Place::Layer(self.layer),
            (None, Cut::Embedding) => Place::First,
            (None, Cut::LastNorm) if names == Scheme::Mcore => Place::Layer(layers - 1),
            (None, _) => Place::Last,
        }
    }
}

/// What the tables say, for one job.
pub(super) struct Network<'a> {
    pub(super) family: &'a Family,
    pub(super) training: &'a Training,
    pub(super) numbers: &'a Numbers,
    /// Whether its layers have experts where config.json says so, and not where the trainer's network has them.
    pub(super) as_model: bool,
}

impl Network<'_> {
    /// All tensors.
    ///
    /// # Errors
    /// [`Kind::Config`] for numbers that the model's configuration lacks.
    pub(super) fn parameters(&self) -> Result<Vec<Parameter>> {
        let layers = self.numbers.value("layers")?;
        if layers == 0 {
            return Err(Fault::new(Kind::Config, "the model has no layers"));
        }
        let mut all = Vec::new();
        let nowhere = Spot {
            prefix: String::new(),
            layer: 0,
            mtp: None,
            moe: false,
            block: None,
        };
        self.spell_all(&nowhere, layers, &mut all)?;
        for block in &self.family.blocks {
            let (from, to) = (
                self.numbers.value(&block.from)?,
                self.numbers.value(&block.to)?,
            );
            let prefix = match self.training.names {
                Scheme::Legacy => &block.legacy,
                Scheme::Mcore => &block.mcore,
            };
            let Some(prefix) = prefix else { continue };
            for layer in from..to {
                let spot = Spot {
                    prefix: prefix.clone(),
                    layer,
                    mtp: block.mtp.then_some(layer - from),
                    // A layer that predicts further is like the last one.
                    moe: self.has_experts(layer.min(layers - 1))?,
                    block: Some(block),
                };
                self.spell_all(&spot, layers, &mut all)?;
            }
        }
        Ok(all)
    }

    /// Whether the network has any layer with experts.
    pub(super) fn any_experts(&self) -> Result<bool> {
        let layers = self.numbers.value("layers")?;
        for layer in 0..layers {
            if self.has_experts(layer)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_experts(&self, layer: u64) -> Result<bool> {
        if self.as_model {
            return self.family.has_experts(self.numbers, layer);
        }
        if self.training.experts_everywhere {
            return Ok(true);
        }
        let Some(experts) = &self.family.experts_in else {
            return Ok(false);
        };
        let from = self.numbers.value(&experts.from)?;
        if from > 0 {
            return Ok(layer >= from);
        }
        let key = experts.every.split('|').next().unwrap_or_default().trim();
        let list = self.numbers.list(key);
        let place = usize::try_from(layer).ok();
        if let Some(one) = place.and_then(|place| list.get(place)) {
            return Ok(*one != 0);
        }
        Ok(layer.is_multiple_of(self.numbers.value(&experts.every)?.max(1)))
    }

    fn spell_all(&self, spot: &Spot<'_>, layers: u64, all: &mut Vec<Parameter>) -> Result<()> {
        let numbers = match spot.block {
            Some(_) => self
                .family
                .numbers_of(self.numbers, spot.layer, spot.mtp.is_some())?,
            None => Cow::Borrowed(self.numbers),
        };
        for rule in self.family.tensors.iter().filter(|r| spot.has(r.within)) {
            let Some(trained) = &rule.cut else { continue };
            let when = trained.when.as_ref().or(rule.when.as_ref());
            if when.is_some_and(|when| !hold(&numbers, when)) {
                continue;
            }
            for pattern in self.patterns(rule)? {
                all.push(self.parameter(&pattern, trained, spot, layers)?);
            }
        }
        for only in self.family.only_ms.iter().filter(|o| spot.has(o.within)) {
            let when = only.cut.when.as_ref();
            if when.is_none_or(|when| hold(&numbers, when)) {
                all.push(self.parameter(&only.mcore, &only.cut, spot, layers)?);
            }
        }
        Ok(())
    }

    /// `NAME [SHAPE]` of each of the network's tensors that a rule is about.
    fn patterns(&self, rule: &Rule) -> Result<Vec<String>> {
        let side = match self.training.names {
            Scheme::Legacy => &rule.legacy,
            Scheme::Mcore => &rule.mcore,
        };
        let Some(side) = side else {
            return Ok(Vec::new());
        };
        let joins = match self.training.names {
            Scheme::Mcore => true,
            Scheme::Legacy => self.numbers.holds("qkv_concat"),
        };
        let names = match side {
            Side::Names(names) => names,
            Side::Choice { joined, .. } if joins => joined,
            Side::Choice { separate, .. } => separate,
        };
        let (names, hf) = (names.list(), rule.hf.list());
        let shapes: Vec<&str> = hf.iter().map(|pattern| shape(pattern)).collect();
        let fused = matches!(rule.make, Some(Make::Qkv | Make::GateUp)) && names.len() == 1;
        let mut patterns = Vec::new();
        for (place, name) in names.iter().enumerate() {
            if name.contains('[') {
                patterns.push(name.clone());
            } else if fused {
                let firsts = shapes.iter().map(|s| s.split(',').next().unwrap_or(s));
                let rows = firsts.collect::<Vec<_>>().join(" + ");
                let rest = shapes[0].split_once(',').map(|(_, rest)| rest);
                let rest = rest.map_or(String::new(), |rest| format!(",{rest}"));
                patterns.push(format!("{name} [{rows}{rest}]"));
            } else if let Some(shape) = shapes.get(place) {
                patterns.push(format!("{name} [{shape}]"));
            } else {
                let message = format!("the table gives '{name}' no shape");
                return Err(Fault::new(Kind::Corrupt, message));
            }
        }
        Ok(patterns)
    }

    fn parameter(
        &self,
        pattern: &str,
        trained: &Trained,
        spot: &Spot<'_>,
        layers: u64,
    ) -> Result<Parameter> {
        let name = pattern.split(" [").next().unwrap_or(pattern);
        let name = spot.spell(name);
        let sizes: Vec<String> = shape(pattern).split(',').map(|s| s.trim().into()).collect();
        let value = |size: &String| self.numbers.value(size);
        let dims: Result<Vec<u64>> = sizes.iter().map(value).collect();
        let dims = dims.map_err(|fault| fault.tensor(&*name))?;
        if dims.contains(&0) {
            let message = format!("its shape would be {dims:?}");
            return Err(Fault::new(Kind::Config, message).tensor(name));
        }
        Ok(Parameter {
            name,
            shape: dims,
            sizes,
            cut: trained.by,
            trained: !trained.untrained,
            muon_keeps_whole: trained.muon_keeps_whole,
            place: spot.place(trained.by, self.training.names, layers),
        })
    }
}

/// What stands in the brackets of a pattern.
fn shape(pattern: &str) -> &str {
    let after = pattern.split_once('[').map_or("", |(_, after)| after);
    after.trim_end().trim_end_matches(']')
}
