//! What the axes of a mesh are for, where the names of a network's tensors tell.
//!
//! MindSpore's files have sizes alone. The networks of MindSpore Transformers lay their meshes out in one
//! order each: those with mcore names data, context and tensor parallel, experts by expert parallel alone;
//! those with legacy names leave axes of size 1 out, and cut along the last one only.

/// Parts of names that only networks with mcore names have.
const MCORE: [&str; 4] = [
    "decoder.layers.",
    "mtp.layers.",
    "embedding.word_embeddings.",
    "output_layer.",
];
/// Parts of names that only networks with legacy names have.
const LEGACY: [&str; 5] = [
    ".attention.",
    ".feed_forward.",
    "tok_embeddings.",
    "norm_out.",
    "lm_head.",
];
/// Parts of the names of what lies on the mesh of the experts.
const EXPERTS: [&str; 3] = [".mlp.experts.", ".mlp.router.", ".mlp.expert_bias"];

/// What the axes of a stage are called: data, context and tensor parallel.
pub(super) const USUAL: [&str; 3] = ["dp", "cp", "tp"];
/// What the axis is called that cuts experts.
pub(super) const EXPERT: &str = "ep";

/// Whether the mesh of the tensor `name` is one of the experts alone.
pub(super) fn lies_on_experts_mesh(name: &str, mesh: &[u64]) -> bool {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    mesh.len() == 2 && has(&MCORE) && has(&EXPERTS)
}

/// What each axis of the mesh of the tensor `name` is called, the first one first: `dp`, `cp`, `tp`, `ep`, `edp`
/// for the replicas of experts, or `axis 0` and so on. `map` has for each dimension the axes that cut it,
/// numbered from the right.
pub(super) fn named(name: &str, mesh: &[u64], map: &[Vec<i64>]) -> Vec<String> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let mut cutting = map.iter().flatten().filter(|axis| **axis >= 0).peekable();
    let cuts_last = cutting.peek().is_some() && cutting.all(|axis| *axis == 0);
    let known: &[&str] = match mesh.len() {
        3 if has(&MCORE) || name.contains("final_layernorm.") => &["dp", "cp", "tp"],
        2 if lies_on_experts_mesh(name, mesh) => &["edp", EXPERT],
        3 if has(&LEGACY) && cuts_last => &["dp", "cp", "tp"],
        2 if has(&LEGACY) && cuts_last => &["dp", "tp"],
        1 if has(&LEGACY) && cuts_last => &["tp"],
        _ => &[],
    };
    if known.is_empty() {
        return (0..mesh.len()).map(|axis| format!("axis {axis}")).collect();
    }
    known.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_named_where_the_network_is_known() {
        for (name, mesh, map, names) in [
            (
                "adam_m.decoder.layers.0.mlp.linear_fc1.weight",
                &[2, 1, 4][..],
                0,
                "dp cp tp",
            ),
            ("decoder.layers.1.mlp.experts.weight1", &[4, 2], 0, "edp ep"),
            ("model.layers.0.attention.wq.weight", &[2, 4], 0, "dp tp"),
            ("model.layers.0.feed_forward.w1.weight", &[4], 0, "tp"),
            (
                "model.layers.0.attention.wq.weight",
                &[2, 4],
                1,
                "axis 0 axis 1",
            ),
            ("model.layers.0.attention.wq.weight", &[4], -1, "axis 0"),
            ("w", &[2, 2, 2], 0, "axis 0 axis 1 axis 2"),
        ] {
            assert_eq!(named(name, mesh, &[vec![map]]).join(" "), names, "{name}");
        }
    }
}
