//! What a job can't have: refused with the key, its value and what would fit.

use super::job::{Job, as_config};
use super::network::{Network, Parameter};
use super::placement::{Placement, network, place};
use crate::fault::{Fault, Kind, Result};
use crate::model::choices::Scheme;
use crate::model::training::Cut;

fn wrong(message: String) -> Fault {
    Fault::new(Kind::Config, message)
}

/// The sizes from 1 to `most` that divide all of `counts`: the first of them.
fn divisors(counts: &[u64], most: u64) -> String {
    let fits = |n: &u64| counts.iter().all(|count| count.is_multiple_of(*n));
    let all = (1..=most.min(4096)).filter(fits);
    let all: Vec<String> = all.take(24).map(|n| n.to_string()).collect();
    all.join(", ")
}

/// The key that a table's number is read from.
fn key_of(job: &Job, number: &str) -> String {
    let definition = job.family.numbers.get(number);
    let first = definition.and_then(|d| d.split(['|', ' ']).find(|word| !word.is_empty()));
    first.unwrap_or(number).to_owned()
}

/// Checks what the network checks when it is built.
///
/// # Errors
/// [`Kind::Config`].
pub(super) fn check(job: &Job, network: &Network<'_>) -> Result<()> {
    job.refusals()?;
    heads(job)?;
    if job.scheme == Scheme::Mcore {
        experts(job, network)?;
    }
    predicting(job)?;
    schedule(job)?;
    cubic(job)?;
    if job.optimizer.is_muon() {
        let latent = job.numbers.holds("multi_latent_attention");
        let tracks = job.numbers.holds("track_max_attention_logit");
        if !latent {
            let fault = wrong(
                "optimizer.type is Muon, which takes models with latent attention only".into(),
            );
            return Err(fault.hint("AdamW fits any model"));
        }
        if !tracks {
            let fault =
                wrong("optimizer.type is Muon, and track_max_attention_logit is not true".into());
            return Err(fault.hint("model.model_config.track_max_attention_logit: True"));
        }
    }
    Ok(())
}

/// The heads of queries, and those of keys and values.
fn head_counts(job: &Job) -> Result<[u64; 2]> {
    let value = |number: &str| job.numbers.value(number).map_err(as_config);
    let heads = value("heads")?;
    let has_kv = job.family.numbers.contains_key("kv_heads");
    Ok([heads, if has_kv { value("kv_heads")? } else { heads }])
}

fn heads(job: &Job) -> Result<()> {
    let hidden = job.numbers.value("hidden").map_err(as_config)?;
    let [heads, kv] = head_counts(job)?;
    if heads == 0 || kv == 0 {
        return Err(wrong("the model has no heads".into()));
    }
    let (tp, ulysses) = (job.mesh.tensor, job.ulysses);
    let cut = match &job.cubic {
        Some(cubic) => cubic.y.max(1),
        None => tp.saturating_mul(ulysses),
    };
    let by = match ulysses {
        1 => format!("model_parallel {tp}"),
        _ => format!(
            "model_parallel {tp} * {ulysses} ranks that share heads by context_parallel_algo"
        ),
    };
    for (number, count) in [("heads", heads), ("kv_heads", kv)] {
        if !count.is_multiple_of(cut) {
            let key = key_of(job, number);
            let message = format!("{key} {count} can't be cut by {by}");
            let fits = tensor_sizes(job)?;
            return Err(wrong(message).hint(format!("model_parallel: one of {fits}")));
        }
    }
    if !hidden.is_multiple_of(heads) {
        let keys = (key_of(job, "hidden"), key_of(job, "heads"));
        let message = format!("{} {hidden} is no multiple of {} {heads}", keys.0, keys.1);
        return Err(wrong(message).hint("the trainer refuses such a model"));
    }
    Ok(())
}

fn experts(job: &Job, network: &Network<'_>) -> Result<()> {
    let mesh = &job.mesh;
    let room = mesh.data * mesh.tensor;
    let moe = network.any_experts().map_err(as_config)?;
    let expert = mesh.expert;
    if !room.is_multiple_of(expert) {
        let message = format!(
            "expert_parallel {expert} doesn't divide data_parallel {} * model_parallel {}",
            mesh.data, mesh.tensor
        );
        return Err(wrong(message).hint(format!("one of {}", divisors(&[room], room))));
    }
    if !moe {
        return Ok(());
    }
    let experts = job.numbers.value("experts").map_err(as_config)?;
    if !experts.is_multiple_of(expert) {
        let key = key_of(job, "experts");
        let message = format!("{key} {experts} can't be cut by expert_parallel {expert}");
        return Err(wrong(message).hint(format!("one of {}", divisors(&[experts, room], room))));
    }
    if mesh.tensor > 1 && !job.sequence {
        let message = format!(
            "model_parallel is {} and use_seq_parallel False, in a model with experts",
            mesh.tensor
        );
        let fault = wrong(message);
        return Err(
            fault.hint("the trainer refuses this: use_seq_parallel: True, or model_parallel: 1")
        );
    }
    Ok(())
}

fn predicting(job: &Job) -> Result<()> {
    if !job.family.numbers.contains_key("mtp") {
        return Ok(());
    }
    let count = job.numbers.value("mtp").map_err(as_config)?;
    if count > 1 {
        let key = key_of(job, "mtp");
        let message = format!("{key} is {count}: the trainer has one such layer at most");
        return Err(wrong(message).hint(format!("{key}: 1, or 0")));
    }
    Ok(())
}

fn schedule(job: &Job) -> Result<()> {
    if job.vee && job.chunks != 2 {
        let message = format!(
            "pipeline_scheduler is zero_bubble_v and pp_interleave_num {}: where its layers are is known for 2 only",
            job.chunks
        );
        return Err(wrong(message).hint("pipeline_interleave: True and pp_interleave_num: 2"));
    }
    Ok(())
}

fn cubic(job: &Job) -> Result<()> {
    let Some(cubic) = &job.cubic else {
        return Ok(());
    };
    let tp = job.mesh.tensor;
    let product = cubic.x.saturating_mul(cubic.y).saturating_mul(cubic.z);
    if product != tp {
        let message = format!(
            "tp_x {} * tp_y {} * tp_z {} is {product}, model_parallel is {tp}",
            cubic.x, cubic.y, cubic.z
        );
        return Err(wrong(message).hint("with use_3d_tensor_parallel they must be equal"));
    }
    if !job.sequence {
        let fault = wrong("use_3d_tensor_parallel is set and use_seq_parallel isn't".into());
        return Err(fault.hint("use_seq_parallel: True"));
    }
    Ok(())
}

/// Into how many pieces what of a tensor is cut: the rows of a dimension, and those of each part of a fused one.
fn cuts<'a>(
    job: &'a Job,
    parameter: &'a Parameter,
    placement: &'a Placement,
) -> impl Iterator<Item = (&'a str, u64, u64)> {
    let axes = placement.mesh.len();
    let each = placement.map.iter().enumerate();
    each.flat_map(move |(dimension, cuts)| {
        let sizes = cuts.iter().filter_map(|number| {
            let place = usize::try_from(*number).ok()?;
            placement.mesh.get(axes.checked_sub(1 + place)?)
        });
        let pieces: u64 = sizes.product();
        let size = parameter.shape.get(dimension).copied().unwrap_or(1);
        let sum = parameter.sizes.get(dimension).map_or("", String::as_str);
        let parts = sum.split(" + ").filter(|_| !sum.contains('('));
        let parts = parts.filter_map(|part| Some((part, job.numbers.value(part).ok()?)));
        let parts = parts.chain([(sum, size)]);
        parts.map(move |(part, rows)| (part, rows, pieces))
    })
}

/// Checks that the pieces of a tensor are equal, and those of each part of a fused one.
///
/// # Errors
/// [`Kind::Config`] with the number of the model that can't be cut.
pub(super) fn even(job: &Job, parameter: &Parameter, placement: &Placement) -> Result<()> {
    let odd = |(_, rows, pieces): &(&str, u64, u64)| !rows.is_multiple_of(*pieces);
    let Some((part, rows, pieces)) = cuts(job, parameter, placement).find(odd) else {
        return Ok(());
    };
    let (by, fits) = match parameter.cut {
        Cut::Expert => ("expert_parallel", divisors(&[rows], rows)),
        _ => ("model_parallel", tensor_sizes(job)?),
    };
    let message = format!(
        "{} is {rows} and can't be cut by {by} in {pieces}",
        spelled(job, part)
    );
    let fault = wrong(message).tensor(&*parameter.name);
    Err(fault.hint(format!("{by}: one of {fits}")))
}

/// The sizes of `model_parallel` that cut the heads and every tensor evenly.
///
/// # Errors
/// [`Kind::Config`] for numbers that the model's configuration lacks.
fn tensor_sizes(job: &Job) -> Result<String> {
    let mut counts = head_counts(job)?
        .map(|count| count / job.ulysses.max(1))
        .to_vec();
    // A legacy network leaves these whole where they can't be cut.
    let may_be_whole =
        |cut: Cut| job.scheme == Scheme::Legacy && matches!(cut, Cut::Head | Cut::Embedding);
    for parameter in network(job).parameters().map_err(as_config)? {
        if parameter.cut != Cut::Expert && !may_be_whole(parameter.cut) {
            let placement = place(job, &parameter);
            let cut = cuts(job, &parameter, &placement).filter(|(.., pieces)| *pieces > 1);
            counts.extend(cut.map(|(_, rows, _)| rows));
        }
    }
    let most = counts.iter().min().copied().unwrap_or(1);
    Ok(divisors(&counts, most))
}

/// A table's expression in the keys of the model's configuration.
fn spelled(job: &Job, expression: &str) -> String {
    let known = |word: &str| job.family.numbers.contains_key(word);
    let words = expression.split(' ').map(|word| {
        let bare = word.trim_matches(['(', ')']);
        if known(bare) {
            word.replace(bare, &key_of(job, bare))
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
