//! Hugging Face tensors that have several of the network's below each other, as `gate_up_proj`.

use super::link::{Link, Tensor};
use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;

/// One link of those whose Hugging Face tensors lie below each other in `joined`.
///
/// # Errors
/// [`Kind::Corrupt`] for no links.
pub(super) fn below_each_other(mut joined: Tensor, links: Vec<Link>) -> Result<Link> {
    let none = || Fault::new(Kind::Corrupt, "the table joins no tensors").tensor(&*joined.name);
    let mut whole: Option<Link> = None;
    let mut dims: Vec<u64> = Vec::new();
    for link in links {
        let mut firsts = Vec::new();
        for tensor in &link.hf {
            let first = dims.first().copied().unwrap_or_default();
            let rows = tensor.shape.0.first().copied();
            firsts.push(first);
            match dims.first_mut() {
                Some(all) => *all = first.saturating_add(rows.unwrap_or_default()),
                None => dims.clone_from(&tensor.shape.0),
            }
        }
        let all = whole.get_or_insert_with(|| Link {
            parts: 0,
            hf: Vec::new(),
            ms: Vec::new(),
            bonds: Vec::new(),
            ..link.clone()
        });
        let before = all.ms.len();
        let bonds = link.bonds.into_iter();
        let moved = bonds.filter_map(|bond| Some((*firsts.get(bond.hf)?, bond)));
        all.bonds
            .extend(moved.map(|(first, bond)| bond.below(first, before)));
        all.parts += link.parts;
        all.ms.extend(link.ms);
    }
    let mut whole = whole.ok_or_else(none)?;
    joined.shape = Shape(dims);
    whole.hf = vec![joined];
    Ok(whole)
}
