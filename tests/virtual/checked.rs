//! Uses of the exchange that must not be are found.

use crate::exchange::{Alarm, Operation, World, all_reduce, barrier};
use crate::fault::Result;
use crate::host::cluster::ill::Ills;
use crate::host::cluster::{Setting, run};

fn findings(work: impl Fn(&World) -> Result<()> + Sync) -> String {
    let setting = Setting {
        seed: 7,
        nodes: vec![0, 0, 1],
        alone: None,
        ills: Ills::Listed(Vec::new()),
        calm: false,
        bug: None,
        schedule: None,
    };
    let run = run(
        &setting,
        |_| (),
        || {
            let world = World::start()?;
            work(&world)?;
            world.finish()
        },
    );
    run.findings.join("; ")
}

#[test]
fn collectives_in_another_order_are_found() {
    let found = findings(|world| {
        if world.process() == 1 {
            barrier(world)?;
        }
        all_reduce(world, &mut [1], Operation::Sum)?;
        if world.process() != 1 {
            barrier(world)?;
        }
        Ok(())
    });
    assert!(found.contains("elsewhere"), "{found}");
    assert_eq!(findings(barrier), "");
}

#[test]
fn messages_that_nobody_receives_are_found() {
    let found = findings(|world| {
        if world.process() == 2 {
            Alarm::of(world).raise();
        }
        Ok(())
    });
    assert!(found.contains("1 messages, 0 receives"), "{found}");
}

#[test]
fn processes_that_wait_for_ever_are_found() {
    let found = findings(|world| match world.process() {
        2 => barrier(world),
        _ => Ok(()),
    });
    assert!(found.contains("wait for ever"), "{found}");
}
