//! Hugging Face models as MindSpore has them: a family's table becomes a view.
//!
//! A family is data ([`Family`], one JSON file each in `families/`). Together with a model's config.json
//! ([`Numbers`]) and the [`Choices`] that a table can't tell it is spelled out into a [`Mapping`]: links
//! between tensors of both sides, made of pieces that can be read in either direction. So import and
//! export are the same table.
//!
//! *Absent on purpose*: messages between processes; code for one family: what families differ in is in
//! their tables.

mod bounds;
mod choices;
mod companions;
pub mod derive;
mod described;
mod detect;
mod export;
mod expression;
mod family;
mod fuse;
mod fused_experts;
mod heads;
mod hub;
mod import;
mod joined;
mod lacking;
mod latent;
mod layer_kinds;
mod link;
mod mapping;
mod quantise;
mod quantised;
mod refusals;
mod remake;
mod spot;
mod states;
mod strangers;
mod tied;
mod training;
mod usual;
mod vocabulary;
mod wrapped;

pub use choices::{Choices, Experts, Fusion, Latent, Scheme, Spelled, spelled};
pub use companions::{Companions, companions};
pub use described::{CONFIG, described, directory_of};
pub use detect::{Given, find_family};
pub use export::Export;
pub use expression::Numbers;
pub use family::Family;
pub use fused_experts::experts_apart;
pub(crate) use heads::check_heads;
pub use hub::{has_its_names, tied_in};
pub use import::Import;
pub use lacking::refuse_lacking;
pub use link::{Link, Tensor};
pub use mapping::Mapping;
pub use quantise::Quantise;
pub use quantised::{QUANTISED, quantised_block};
pub(crate) use refusals::check_named;
pub use remake::Remake;
pub use tied::{TIED, tied, untied};
