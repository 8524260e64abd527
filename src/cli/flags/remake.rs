//! Another form of the same model: names, and what is fused.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::family::{EXPERTS, FUSIONS, LATENTS};
use crate::fault::{Fault, Kind, Result};
use crate::job::ViewMaker;
use crate::model::derive::{JOINED, LATENT};
use crate::model::{Experts, Fusion, Given, Latent, Remake, Scheme, described, directory_of};
use clap::Args;
use std::path::Path;

/// How a value is typed.
pub(crate) fn word<T: PartialEq>(table: &[Choice<T>], value: &T) -> String {
    let row = table.iter().find(|(_, known, _)| known == value);
    row.map_or(String::new(), |(word, ..)| (*word).to_owned())
}

/// The form to write; what isn't said is as it is, or with other names as their usual job has it.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemakeArgs {
    /// Write query, key and value so, with their optimizer's states. Needs the model, as the next ones.
    #[arg(long, value_parser = choice(FUSIONS))]
    qkv: Option<Fusion>,
    /// Write gate and up so.
    #[arg(long, value_parser = choice(FUSIONS))]
    ffn: Option<Fusion>,
    /// Write experts so.
    #[arg(long, value_parser = choice(EXPERTS))]
    experts: Option<Experts>,
    /// Write the latent projections of DeepSeek-V3 so.
    #[arg(long, value_parser = choice(LATENTS))]
    mla: Option<Latent>,
    /// Tensor-parallel size that contiguous fused tensors are written for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    tp: Option<u64>,
    /// How query, key and value are laid out in the source [default: as its files say].
    #[arg(long, value_parser = choice(FUSIONS))]
    src_qkv: Option<Fusion>,
    /// How gate and up are.
    #[arg(long, value_parser = choice(FUSIONS))]
    src_ffn: Option<Fusion>,
    /// Tensor-parallel size that its contiguous fused tensors are for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    src_tp: Option<u64>,
}

impl RemakeArgs {
    /// Whether another form is asked for.
    fn is_given(&self) -> bool {
        let fused = self.qkv.is_some() || self.ffn.is_some();
        fused || self.experts.is_some() || self.mla.is_some() || self.tp.is_some()
    }

    /// The flags that were given for the form to write, and with `source` those for the form there is.
    pub(crate) fn words(&self, source: bool) -> Vec<(&'static str, String)> {
        let fusion = |fusion: Option<Fusion>| fusion.map(|fusion| word(FUSIONS, &fusion));
        let mut words = vec![
            ("--qkv", fusion(self.qkv)),
            ("--ffn", fusion(self.ffn)),
            ("--experts", self.experts.map(|e| word(EXPERTS, &e))),
            ("--mla", self.mla.map(|mla| word(LATENTS, &mla))),
            ("--tp", self.tp.map(|tp| tp.to_string())),
        ];
        if source {
            words.extend([
                ("--src-qkv", fusion(self.src_qkv)),
                ("--src-ffn", fusion(self.src_ffn)),
                ("--src-tp", self.src_tp.map(|tp| tp.to_string())),
            ]);
        }
        let given = words.into_iter();
        given
            .filter_map(|(flag, value)| Some((flag, value?)))
            .collect()
    }

    /// The flags that were given for the form there is, as `export` has them; those for the form to write mean
    /// the same where nothing else is written.
    pub(crate) fn words_read(&self) -> Vec<(&'static str, String)> {
        let read = RemakeArgs {
            qkv: self.src_qkv.or(self.qkv),
            ffn: self.src_ffn.or(self.ffn),
            tp: self.src_tp.or(self.tp),
            ..self.clone()
        };
        read.words(false)
    }

    /// What is written in one, as far as it is said, by the keys of a configuration.
    pub(crate) fn joined(&self) -> Vec<(&'static str, bool)> {
        let qkv = self.qkv.map(|qkv| (JOINED, qkv != Fusion::Separate));
        let mla = self.mla.map(|mla| (LATENT, mla == Latent::Joined));
        qkv.into_iter().chain(mla).collect()
    }

    /// What makes another form, with these names, of a checkpoint of the model that `model` describes; none
    /// if no other one is asked for.
    ///
    /// # Errors
    /// As [`described`]; [`Kind::Usage`] if tensors are `selected`, too, or there is no model.
    pub(crate) fn view(
        &self,
        names: Option<Scheme>,
        model: Option<&Path>,
        selected: bool,
    ) -> Result<Option<ViewMaker>> {
        if let (None, Some((flag, _))) = (model, self.words(true).first()) {
            let fault = Fault::new(Kind::Usage, format!("{flag} needs --model DIR"));
            return Err(fault.hint("DIR is the model's directory, or its config.json"));
        }
        let Some(model) = model.filter(|_| self.is_given() || names.is_some()) else {
            return Ok(None);
        };
        if selected && !self.is_given() {
            // Then names are only those of a strategy given as a layout.
            return Ok(None);
        }
        if selected {
            let message = "other names or fusing, and a selection of tensors, can't be had at once";
            return Err(Fault::new(Kind::Usage, message)
                .hint("do one after the other: --name-map and --filter-out-param-prefix first"));
        }
        let (family, numbers) = described(directory_of(model), "auto", None)?;
        let remake = Remake {
            family,
            numbers,
            given: Given {
                qkv: self.src_qkv,
                ffn: self.src_ffn,
                tp: self.src_tp,
                ..Given::default()
            },
            wanted: Given {
                names,
                qkv: self.qkv,
                ffn: self.ffn,
                experts: self.experts,
                mla: self.mla,
                tp: self.tp,
            },
        };
        let make = move |inventory: &_, metadata: &_| remake.view(inventory, metadata);
        Ok(Some(ViewMaker::new(make)))
    }
}
