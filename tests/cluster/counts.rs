//! What a trainer counts in, in shards on the hosts' own disks.

use super::{Sample, dealt};
use crate::support::command::alone;
use crate::support::tensors::{self, Tensor};

#[test]
fn weights_are_gathered_from_shards_with_counts() {
    let sample = Sample::new();
    for rank in 0..4 {
        let path = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        let mut own = tensors::read(&path).expect("a file").tensors;
        own.insert("step_num".to_owned(), Tensor::counting("I64", &[], 20));
        tensors::write(&path, &own);
    }
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 3]) else {
        return;
    };
    let line = "unify --src @src --src-strategy @four.ckpt --dst @out";
    alone(&sample.args(line)).succeeds();
    for more in [
        "--gather-to-root",
        "--gather-to-root --naming mindspore",
        "",
    ] {
        hosts
            .run(super::PER_HOST, &format!("{line} {more} --overwrite"))
            .succeeds();
        let disk = hosts.disk(1).join("out");
        if more != "--gather-to-root" {
            continue;
        }
        for file in [
            "model-00001-of-00001.safetensors",
            "hyper_param.safetensors",
        ] {
            let read =
                |directory: &std::path::Path| std::fs::read(directory.join(file)).expect("a file");
            assert!(read(&disk) == read(&sample.path("out")), "{file}");
        }
    }
}
