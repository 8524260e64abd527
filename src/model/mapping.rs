//! A family's table spelled out for one model: links between tensors of both sides.

use super::choices::{Choices, Experts, Fusion, Scheme, spelled};
use super::expression::Numbers;
use super::family::{Block, Family, Make, Rule, Side, Within};
use super::fuse::{Joint, Lane, beside, fuse, stack, stack_transposed};
use super::fused_experts::lie_within;
use super::joined::below_each_other;
use super::latent::check_latent;
use super::link::{Bond, Link, Tensor, accept};
use super::spot::Spot;
use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;
use crate::view::{Cut, Piece};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a table calls the number of words.
const VOCABULARY: &str = "vocabulary";

/// All links of a model.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// The links.
    pub links: Vec<Link>,
    /// Tensors that only the Hugging Face side has, and what each is a copy of.
    pub only_hf: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// Hugging Face tensors that have no name in the chosen scheme.
    pub unnamed: Vec<Arc<str>>,
    /// Layers for predicting further tokens that are left out, as none of their tensors is there: beginnings of
    /// names at Hugging Face.
    pub absent: Vec<String>,
}

struct Speller<'a> {
    numbers: &'a Numbers,
    choices: &'a Choices,
    mapping: Mapping,
}

impl Mapping {
    /// Spells a family's table out. `present(hf, ms)` says whether any tensor's name starts with one of
    /// these beginnings: layers for predicting further tokens may be absent.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if config.json lacks a number, [`Kind::Usage`] for choices that don't fit it.
    pub fn new(
        family: &Family,
        numbers: &Numbers,
        choices: &Choices,
        present: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Mapping> {
        let side = |block: &Block| match choices.names {
            Scheme::Legacy => block.legacy.clone(),
            Scheme::Mcore => block.mcore.clone(),
        };
        let numbers = &choices.told(numbers);
        check_latent(family, choices)?;
        let mut speller = Speller {
            numbers,
            choices,
            mapping: Mapping::default(),
        };
        let nowhere = Spot::nowhere(numbers);
        speller.spell_all(family, |within| within.is_none(), &nowhere)?;
        for block in &family.blocks {
            let (from, to) = (numbers.value(&block.from)?, numbers.value(&block.to)?);
            let ms = side(block);
            for layer in from..to {
                let mtp = block.mtp.then_some(layer - from);
                let spot = Spot {
                    layer,
                    mtp,
                    moe: family.has_experts(numbers, layer)?,
                    numbers: family.numbers_of(numbers, layer, mtp.is_some())?,
                    hf: &block.hf,
                    ms: ms.as_deref(),
                };
                let ms = ms.as_deref().unwrap_or_default();
                let hf = spot.spell(&block.hf, ".");
                if block.mtp && !present(&hf, &spot.spell(ms, ".")) {
                    speller.mapping.absent.push(hf);
                    continue;
                }
                speller.spell_all(family, |w| w.is_some_and(|w| spot.is_within(w)), &spot)?;
            }
        }
        speller.mapping.names_each_once()?;
        Ok(speller.mapping)
    }

    /// Of two tensors with one name one would be lost.
    fn names_each_once(&self) -> Result<()> {
        let (mut hf, mut ms) = (BTreeSet::new(), BTreeSet::new());
        for link in &self.links {
            let twice = link.hf.iter().find(|tensor| !hf.insert(&tensor.name));
            let twice = twice.or_else(|| link.ms.iter().find(|tensor| !ms.insert(&tensor.name)));
            if let Some(tensor) = twice {
                let message = "two tensors of the table get this name";
                return Err(Fault::new(Kind::Corrupt, message).tensor(&*tensor.name));
            }
        }
        Ok(())
    }

    /// The names that tensors of the Hugging Face side may have, but for those without one in the chosen scheme.
    pub(super) fn hf_names(&self) -> BTreeSet<&str> {
        let linked = self.links.iter().flat_map(|link| &link.hf);
        let names = linked.flat_map(|tensor| std::iter::once(&tensor.name).chain(&tensor.also));
        let others = self.only_hf.iter().map(|(name, _)| name);
        names.chain(others).map(|name| &**name).collect()
    }
}

impl Speller<'_> {
    fn spell_all(
        &mut self,
        family: &Family,
        applies: impl Fn(Option<Within>) -> bool,
        spot: &Spot<'_>,
    ) -> Result<()> {
        let holds = |when: &Option<String>| when.as_ref().is_none_or(|w| spot.numbers.holds(w));
        for only in &family.only_hf {
            if applies(only.within) && holds(&only.when) {
                let of = only.copy_of.as_ref();
                let name = spot.spell(spot.hf, &only.hf).into();
                let of = of.map(|of| spot.spell(spot.hf, of).into());
                self.mapping.only_hf.push((name, of));
            }
        }
        let rules = family.tensors.iter();
        let rules: Vec<&Rule> = rules
            .filter(|rule| applies(rule.within) && holds(&rule.when))
            .collect();
        for rule in rules {
            let spelled = self.rule(rule, spot);
            spelled.map_err(|fault| {
                let name = rule.hf.list().first();
                let name = name.and_then(|name| name.split(" [").next());
                fault.tensor(name.map_or(String::new(), |name| spot.spell(spot.hf, name)))
            })?;
        }
        Ok(())
    }

    /// The tensor that `pattern` (`NAME` or `NAME [SHAPE]`) names, with what shape it gives.
    fn tensor(&self, prefix: &str, pattern: &str, spot: &Spot<'_>) -> Result<Tensor> {
        let (name, shape) = match pattern.split_once('[') {
            Some((name, shape)) => (name.trim_end(), shape.trim_end().trim_end_matches(']')),
            None => (pattern, ""),
        };
        let dims = shape.split(',').filter(|dim| !dim.trim().is_empty());
        let vocabulary = shape.split(',').next().unwrap_or_default().trim() == VOCABULARY;
        let dims: Vec<u64> = dims
            .map(|dim| self.numbers.value(dim))
            .collect::<Result<_>>()?;
        Ok(Tensor {
            name: spot.spell(prefix, name).into(),
            shape: Shape(dims),
            cut: Cut::Anywhere,
            also: Vec::new(),
            vocabulary,
            within: None,
        })
    }

    fn tensors(&self, prefix: &str, list: &[String], spot: &Spot<'_>) -> Result<Vec<Tensor>> {
        list.iter()
            .map(|pattern| self.tensor(prefix, pattern, spot))
            .collect()
    }

    fn rule(&mut self, rule: &Rule, spot: &Spot<'_>) -> Result<()> {
        let (links, unnamed) = (self.mapping.links.len(), self.mapping.unnamed.len());
        self.parts(rule, spot)?;
        let Some(joined) = &rule.hf_joined else {
            return Ok(());
        };
        let joined = self.tensor(spot.hf, joined, spot)?;
        if self.mapping.unnamed.len() > unnamed {
            self.mapping.unnamed.truncate(unnamed);
            self.mapping.unnamed.push(joined.name);
            return Ok(());
        }
        let links = self.mapping.links.split_off(links);
        self.mapping.links.push(below_each_other(joined, links)?);
        Ok(())
    }

    /// The links of a rule, as if each of its Hugging Face tensors were one.
    fn parts(&mut self, rule: &Rule, spot: &Spot<'_>) -> Result<()> {
        let side = match self.choices.names {
            Scheme::Legacy => &rule.legacy,
            Scheme::Mcore => &rule.mcore,
        };
        let joined = match rule.make {
            Some(Make::Qkv) => self.choices.qkv != Fusion::Separate,
            Some(Make::GateUp) => self.choices.ffn != Fusion::Separate,
            Some(Make::Experts) => self.choices.experts != Experts::Separate,
            Some(Make::Rows | Make::Columns | Make::Blocks) | None => false,
        };
        let mut hf = self.tensors(spot.hf, rule.hf.list(), spot)?;
        accept(&mut hf, &rule.hf_also, |name| spot.spell(spot.hf, name));
        if let Some(all) = &rule.hf_all {
            lie_within(&mut hf, &spot.spell(spot.hf, all));
        }
        let (Some(prefix), Some(side)) = (spot.ms, side) else {
            let names = hf.into_iter().map(|tensor| tensor.name);
            self.mapping.unnamed.extend(names);
            return Ok(());
        };
        let ms = match side {
            Side::Names(names) => names,
            Side::Choice { joined: names, .. } if joined => names,
            Side::Choice { separate, .. } => separate,
        };
        let mut ms = self.tensors(prefix, ms.list(), spot)?;
        accept(&mut ms, &rule.also, |name| spot.spell(prefix, name));
        match rule.make {
            Some(Make::Experts) => {
                // Without a choice they are stacked as they are, each kind in one of its own.
                let joined = joined && matches!(side, Side::Choice { .. });
                return self.experts(rule, &hf, &ms, joined);
            }
            Some(Make::Blocks) => return self.blocks(rule, hf, ms),
            Some(Make::Columns) if ms.len() == 1 => return self.columns(rule, hf, ms),
            Some(Make::Qkv | Make::GateUp | Make::Rows) if ms.len() == 1 => {
                return self.fused(rule, hf, ms);
            }
            _ => {}
        }
        if hf.len() != ms.len() {
            let message = format!("{} names on one side, {} on the other", hf.len(), ms.len());
            return Err(Fault::new(Kind::Corrupt, message));
        }
        for (hf, mut ms) in hf.into_iter().zip(ms) {
            ms.shape = hf.shape.clone();
            self.same(rule, hf, ms);
        }
        Ok(())
    }

    /// Two tensors that differ by name only.
    fn same(&mut self, rule: &Rule, hf: Tensor, ms: Tensor) {
        let whole = Piece::identity(hf.name.clone(), &hf.shape);
        let bond = Bond {
            hf: 0,
            ms: 0,
            domain: whole.domain,
            hf_map: whole.source_map,
            ms_map: whole.destination_map,
            again: false,
        };
        self.link(rule, vec![hf], vec![ms], vec![bond]);
    }

    fn link(&mut self, rule: &Rule, hf: Vec<Tensor>, ms: Vec<Tensor>, bonds: Vec<Bond>) {
        self.mapping.links.push(Link {
            make: rule.make,
            parts: hf.len(),
            hf,
            ms,
            bonds,
            keeps_dtype: rule.keeps_dtype,
        });
    }

    /// Several Hugging Face tensors, fused along dimension 0.
    fn fused(&mut self, rule: &Rule, hf: Vec<Tensor>, mut ms: Vec<Tensor>) -> Result<()> {
        let (fusion, unit, groups) = match rule.make {
            Some(Make::Qkv) => {
                let unit = self.numbers.value("head_dim")?;
                (self.choices.qkv, unit, self.numbers.value("kv_heads")?)
            }
            Some(Make::Rows) => (Fusion::Contiguous, 1, 1),
            _ => (self.choices.ffn, 1, hf[0].rows()?),
        };
        let tp = match rule.make {
            Some(Make::Rows) => 1,
            _ => self.choices.tp,
        };
        let groups = match fusion {
            Fusion::Interleaved if !groups.is_multiple_of(tp) => {
                let message = format!("its {groups} groups can't be cut in {tp}");
                return Err(Fault::new(Kind::Usage, message)
                    .hint("--qkv contiguous repeats keys and values where --tp is larger"));
            }
            Fusion::Interleaved => groups,
            _ => tp,
        };
        let lanes = hf.iter().map(|tensor| {
            let rows = tensor.rows()?;
            Ok(Lane {
                rows,
                unit,
                even_odd: false,
            })
        });
        let lanes: Vec<Lane> = lanes.collect::<Result<_>>()?;
        let inner = &hf[0].shape.0[1..];
        let (rows, joints) = fuse(&lanes, groups, inner)?;
        let mut dims = vec![rows];
        dims.extend(inner);
        ms[0].cut = match fusion {
            _ if rule.make == Some(Make::Rows) => Cut::Anywhere,
            Fusion::Interleaved => Cut::Groups(rows / groups),
            _ => Cut::Exactly(rows / groups),
        };
        ms[0].shape = Shape(dims);
        let bonds = joints
            .into_iter()
            .map(|joint| Bond::joining(joint, 0))
            .collect();
        self.link(rule, hf, ms, bonds);
        Ok(())
    }

    /// Several Hugging Face matrices, side by side.
    fn columns(&mut self, rule: &Rule, hf: Vec<Tensor>, mut ms: Vec<Tensor>) -> Result<()> {
        let shapes: Vec<&Shape> = hf.iter().map(|tensor| &tensor.shape).collect();
        let (shape, joints) = beside(&shapes)?;
        ms[0].shape = shape;
        let bonds = joints.into_iter().map(|joint| Bond::joining(joint, 0));
        self.link(rule, hf, ms, bonds.collect());
        Ok(())
    }

    /// One Hugging Face tensor of blocks, of which the parts are tensors.
    fn blocks(&mut self, rule: &Rule, hf: Vec<Tensor>, ms: Vec<Tensor>) -> Result<()> {
        if ms.len() == 1 {
            let ([hf], [mut ms]) = (list_of_one(hf)?, list_of_one(ms)?);
            ms.shape = hf.shape.clone();
            self.same(rule, hf, ms);
            return Ok(());
        }
        let groups = self.numbers.value(rule.blocks.as_deref().unwrap_or("1"))?;
        let lanes = ms.iter().enumerate().map(|(part, tensor)| {
            let rows = tensor.rows()?;
            Ok(Lane {
                rows,
                unit: rows / groups.max(1),
                even_odd: rule.even_odd.contains(&part),
            })
        });
        let lanes: Vec<Lane> = lanes.collect::<Result<_>>()?;
        let (rows, joints) = fuse(&lanes, groups, &hf[0].shape.0[1..])?;
        if hf[0].shape.0[0] != rows {
            let message = format!("its parts have {rows} rows, it has {}", hf[0].shape);
            return Err(Fault::new(Kind::Corrupt, message));
        }
        let bonds = joints.into_iter().map(|joint| Bond {
            hf: 0,
            ms: joint.part,
            domain: joint.domain,
            hf_map: joint.joined_map,
            ms_map: joint.part_map,
            again: joint.again,
        });
        let bonds = bonds.collect();
        self.link(rule, hf, ms, bonds);
        Ok(())
    }

    /// The same, standing if that is chosen.
    fn standing(&self, ms: &[Tensor], experts: u64) -> Vec<Tensor> {
        let stands = self.choices.experts == Experts::Stacked3d;
        let ms = ms.iter().map(|tensor| tensor.standing(stands, experts));
        ms.collect()
    }

    /// The same one or two matrices of every expert.
    fn experts(&mut self, rule: &Rule, hf: &[Tensor], ms: &[Tensor], joined: bool) -> Result<()> {
        let experts = self.numbers.value("experts")?;
        let of = |tensors: &[Tensor], expert: u64| -> Vec<Tensor> {
            let number = expert.to_string();
            let numbered = tensors.iter().map(|tensor| Tensor {
                name: tensor.name.replace("{expert}", &number).into(),
                within: tensor.within.clone().map(|all| all.of(expert)),
                ..tensor.clone()
            });
            numbered.collect()
        };
        let matrix = |tensor: &Tensor| match tensor.shape.0[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(Fault::new(Kind::Corrupt, "an expert's tensor is no matrix")),
        };
        let each_own = ms.iter().any(|tensor| tensor.name.contains("{expert}"));
        if each_own {
            for expert in 0..experts {
                let (hf, mut ms) = (of(hf, expert), of(ms, expert));
                let lanes = hf.iter().map(|tensor| Ok(Lane::of_rows(matrix(tensor)?.0)));
                let lanes: Vec<Lane> = lanes.collect::<Result<_>>()?;
                let (rows, joints) = fuse(&lanes, 1, &hf[0].shape.0[1..])?;
                ms[0].shape = Shape(vec![rows, matrix(&hf[0])?.1]);
                let bonds = joints
                    .into_iter()
                    .map(|joint| Bond::joining(joint, 0))
                    .collect();
                self.link(rule, hf, ms, bonds);
            }
            return Ok(());
        }
        let ms = self.standing(ms, experts);
        let columns = matrix(&hf[0])?.1;
        let rows: Vec<u64> = hf.iter().map(|t| Ok(matrix(t)?.0)).collect::<Result<_>>()?;
        let mut all = Vec::new();
        let mut bonds = Vec::new();
        for expert in 0..experts {
            let first = all.len();
            all.extend(of(hf, expert));
            let shift = |joint: Joint, ms: usize| {
                let mut bond = Bond::joining(joint, ms);
                bond.hf += first;
                bond
            };
            if joined {
                let joints = stack_transposed(&rows, columns, expert, ms[0].shape.0.len());
                bonds.extend(joints.into_iter().map(|joint| shift(joint, 0)));
            } else {
                for (part, rows) in rows.iter().enumerate() {
                    let mut bond = shift(stack(*rows, columns, expert), part);
                    bond.hf += part;
                    bonds.push(bond);
                }
            }
        }
        if ms.len() != if joined { 1 } else { hf.len() } {
            let message = format!(
                "--experts {}: names are missing",
                spelled(self.choices.experts)
            );
            return Err(Fault::new(Kind::Corrupt, message));
        }
        self.link(rule, all, ms, bonds);
        Ok(())
    }
}

fn list_of_one(tensors: Vec<Tensor>) -> Result<[Tensor; 1]> {
    let count = tensors.len();
    tensors
        .try_into()
        .map_err(|_| Fault::new(Kind::Corrupt, format!("{count} names where one is due")))
}
