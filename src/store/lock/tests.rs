use super::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

fn take(path: &Path) -> Result<Lock> {
    Lock::take(path, "test", "here", &|_| Ok(()))
}

/// A lock of a process that is gone, of this machine.
fn dead(path: &Path) -> String {
    let holder = Holder::of_this_process("dead", "here");
    let text = String::from_utf8(holder.to_bytes().unwrap()).unwrap();
    let born = text.split("\"born\":").nth(1).unwrap();
    let born = born.split(',').next().unwrap();
    let text = text.replace(&format!("\"born\":{born}"), "\"born\":1");
    io::write_small(path, text.as_bytes(), false).unwrap();
    holder.token
}

fn names(room: &Path) -> Vec<String> {
    let names = io::list(room).unwrap().into_iter();
    names.map(|(name, _)| name).collect()
}

#[test]
fn refuses_a_second_run_and_names_the_first() {
    let room = tempfile::tempdir().unwrap();
    let path = beside(&room.path().join("out"));
    let first = take(&path).unwrap();
    first.prove().unwrap();
    let fault = take(&path).unwrap_err();
    assert_eq!(fault.kind, Kind::Busy);
    let file = fault.file.clone().unwrap();
    assert!(file.ends_with("/out"), "{file}");
    let process = format!("process {} on here", std::process::id());
    assert!(fault.message.contains(&process), "{fault}");
    assert!(fault.message.contains("sign of life"), "{fault}");
    assert_eq!(names(room.path()), [".out.shardloom-lock"]);
    drop(first);
    drop(take(&path).unwrap());
    assert!(names(room.path()).is_empty());
}

// proves P34
#[test]
fn takes_over_from_the_dead_after_adopting_what_it_left() {
    let room = tempfile::tempdir().unwrap();
    let path = beside(&room.path().join("out"));
    let token = dead(&path);
    let adopted = Mutex::new(Vec::new());
    let adopt = |token: &str| {
        adopted.lock().unwrap().push(token.to_owned());
        Ok(())
    };
    let lock = Lock::take(&path, "test", "here", &adopt).unwrap();
    assert_eq!(*adopted.lock().unwrap(), [token]);
    lock.prove().unwrap();
    assert_eq!(names(room.path()), [".out.shardloom-lock"]);
}

#[test]
fn clears_away_what_runs_have_left_that_died_while_they_took_it() {
    let room = tempfile::tempdir().unwrap();
    let path = beside(&room.path().join("out"));
    let named = |ending: &str| room.path().join(format!(".out.shardloom-lock-{ending}"));
    for left in ["0123abcd", "4567-heir", "89ab-dead", "dead"] {
        dead(&named(left));
    }
    // One that died while it wrote its name.
    io::write_small(&named("00ff"), b"{", false).unwrap();
    let living = Holder::of_this_process("test", "here");
    io::write_small(&named("beef"), &living.to_bytes().unwrap(), false).unwrap();
    // These are of other places.
    dead(&named("notes"));
    dead(&beside(&room.path().join("other")));
    let lock = take(&path).unwrap();
    lock.prove().unwrap();
    let mut left = names(room.path());
    left.sort();
    let expected = [
        ".other.shardloom-lock",
        ".out.shardloom-lock",
        ".out.shardloom-lock-beef",
        ".out.shardloom-lock-notes",
    ];
    assert_eq!(left, expected);
}

#[test]
fn one_of_many_wins() {
    for round in 0..30 {
        let room = tempfile::tempdir().unwrap();
        let path = beside(&room.path().join("out"));
        if round % 2 == 0 {
            dead(&path);
        }
        let (begin, end, won) = (Barrier::new(8), Barrier::new(8), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    let taken = take(&path);
                    match &taken {
                        Ok(lock) => {
                            won.fetch_add(1, Ordering::SeqCst);
                            lock.prove().unwrap();
                        }
                        Err(fault) => assert_eq!(fault.kind, Kind::Busy, "{fault}"),
                    }
                    end.wait();
                });
            }
        });
        assert_eq!(won.load(Ordering::SeqCst), 1, "round {round}");
        assert!(names(room.path()).is_empty(), "{:?}", names(room.path()));
    }
}

// proves P36
#[test]
fn notices_that_another_has_taken_over() {
    let room = tempfile::tempdir().unwrap();
    let path = beside(&room.path().join("out"));
    let first = take(&path).unwrap();
    io::remove(&path).unwrap();
    assert_eq!(first.prove().unwrap_err().kind, Kind::Busy);
    let second = take(&path).unwrap();
    let fault = first.prove().unwrap_err();
    assert!(fault.message.contains("taken over"), "{fault}");
    drop(first);
    second.prove().unwrap();
}

#[test]
fn removes_the_directories_made_for_it_if_nothing_came_into_them() {
    let room = tempfile::tempdir().unwrap();
    let path = beside(&room.path().join("a/b/out"));
    drop(take(&path).unwrap());
    assert!(names(room.path()).is_empty());
}
