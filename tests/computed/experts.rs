//! Pairs of experts that lie in one tensor, as PEFT makes them for `target_parameters`.

use super::adapters::small;
use super::command::error_line;
use super::float::{self, Matrix};
use super::tensors::{self, Tensor, Tensors};
use super::{held, run};

const EXPERTS: usize = 3;
const RANK: usize = 2;
const MODULE: &str = "model.layers.0.mlp.experts";
/// Rows and columns of an expert's matrix of each parameter.
const PARAMETERS: [(&str, [usize; 2]); 2] = [("gate_up_proj", [8, 6]), ("down_proj", [6, 4])];

/// The matrices of all experts below each other, as one tensor of three dimensions.
fn together(matrix: &Matrix, [rows, columns]: [usize; 2]) -> Tensor {
    Tensor {
        shape: vec![EXPERTS, rows, columns],
        ..matrix.to("F32")
    }
}

/// Where each expert has tensors of its own, and what they are called: gate, up, down.
const FORMS: [(&str, [&str; 3]); 2] = [
    (MODULE, ["gate_proj", "up_proj", "down_proj"]),
    (
        "model.layers.0.block_sparse_moe.experts",
        ["w1", "w3", "w2"],
    ),
];

/// The tensors of each expert by itself, in the form of this number.
fn apart(form: usize, name: &str, matrix: &Matrix, [rows, columns]: [usize; 2], all: &mut Tensors) {
    let (module, [gate, up, down]) = FORMS[form];
    let parts: &[&str] = match name {
        "gate_up_proj" => &[gate, up],
        _ => &[down],
    };
    let height = rows / parts.len();
    for expert in 0..EXPERTS {
        for (part, called) in parts.iter().enumerate() {
            let first = expert * rows + part * height;
            let own = Matrix::by([height, columns], |i, j| matrix.at(first + i, j));
            all.insert(format!("{module}.{expert}.{called}.weight"), own.to("F32"));
        }
    }
}

/// `base` with the products of `a` and `b` added, each element by itself.
fn merged(base: &Matrix, a: &Matrix, b: &Matrix, rows: usize, turned: bool) -> Matrix {
    Matrix::by(base.shape, |row, j| {
        let (expert, i) = (row / rows, row % rows);
        let (i, j) = if turned { (j, i) } else { (i, j) };
        let product = |k: usize| {
            f64::from(b.at(i, k * EXPERTS + expert)) * f64::from(a.at(expert * RANK + k, j))
        };
        let sum: f64 = (0..RANK).map(product).sum();
        let (i, j) = if turned { (j, i) } else { (i, j) };
        float::nearest(f64::from(base.at(expert * rows + i, j)) + 2.0 * sum)
    })
}

/// Both ways round, into one tensor and into one for each expert.
#[test]
fn merges_pairs_of_experts() {
    for (turned, version) in [(false, "0.21.2"), (true, "0.18.0")] {
        let room = tempfile::tempdir().unwrap();
        let mut seed = 17;
        let (mut before, mut after, mut pairs) = (Tensors::new(), Tensors::new(), Tensors::new());
        let mut before_apart = [Tensors::new(), Tensors::new()];
        let mut after_apart = before_apart.clone();
        for (number, (name, shape)) in PARAMETERS.into_iter().enumerate() {
            let [rows, columns] = shape;
            let base = small(&mut seed, [EXPERTS * rows, columns]);
            let (high, wide) = if turned {
                (columns, rows)
            } else {
                (rows, columns)
            };
            let a = small(&mut seed, [EXPERTS * RANK, wide]);
            let b = small(&mut seed, [high, EXPERTS * RANK]);
            let new = merged(&base, &a, &b, rows, turned);
            let own = format!("{MODULE}.{name}");
            before.insert(own.clone(), together(&base, shape));
            after.insert(own, together(&new, shape));
            for form in 0..FORMS.len() {
                apart(form, name, &base, shape, &mut before_apart[form]);
                apart(form, name, &new, shape, &mut after_apart[form]);
            }
            // The first is wrapped again by the second.
            let inner = if number == 0 { ".base_layer" } else { "" };
            let module = format!("base_model.model.{MODULE}{inner}");
            pairs.insert(format!("{module}.lora_A.weight"), a.to("F32"));
            pairs.insert(format!("{module}.lora_B.weight"), b.to("F32"));
        }
        let config = format!(
            r#"{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": 4, "peft_version": "{version}",
                "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}}"#
        );
        let at = |name: &str| room.path().join(name);
        tensors::write(&at("ad/adapter_model.safetensors"), &pairs);
        tensors::write_bytes(&at("ad/adapter_config.json"), config.as_bytes());
        tensors::write(&at("one/model.safetensors"), &before);
        tensors::write(&at("each/model.safetensors"), &before_apart[0]);
        tensors::write(&at("other/model.safetensors"), &before_apart[1]);
        for (source, due, processes) in [
            ("one", &after, 3),
            ("each", &after_apart[0], 1),
            ("other", &after_apart[1], 2),
        ] {
            let line = format!("unify --src @{source} --lora @ad --dst @out --overwrite");
            run(&room, processes, &line).succeeds();
            let found: Tensors = held(&at("out")).into_values().flatten().collect();
            tensors::compare(due, &found).unwrap_or_else(|e| panic!("{source} {turned}: {e}"));
        }
        before.remove(&format!("{MODULE}.down_proj"));
        tensors::write(&at("less/model.safetensors"), &before);
        let fails = run(&room, 1, "unify --src @less --lora @ad --dst @none");
        let line = error_line(&fails);
        assert!(line.contains("don't fit"), "{fails:#?}");
        pairs.retain(|name, _| name.contains(".base_layer."));
        tensors::write(&at("half/adapter_model.safetensors"), &pairs);
        tensors::write_bytes(&at("half/adapter_config.json"), config.as_bytes());
        let fails = run(&room, 1, "unify --src @one --lora @half --dst @none");
        let line = error_line(&fails);
        assert!(
            line.contains("names 'mlp.experts.down_proj' in target_parameters"),
            "{fails:#?}"
        );
    }
}
