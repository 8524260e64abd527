//! A fault as it is told: files by the names that were typed, and what to do where its finder hasn't said it.

use crate::fault::{Fault, Kind};
use std::path::Path;

/// The fault, as the user of `command` is told it.
pub(super) fn said(command: &str, mut fault: Fault) -> Fault {
    if let (Some(file), Ok(working)) = (&fault.file, std::env::current_dir()) {
        let words = std::env::args_os().skip(1);
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        fault.file = Some(as_typed(file, &working, &words).to_owned());
    }
    match usual(fault.kind, command) {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// The file's path from the working directory, where it lies there and no word of the line has the whole path.
fn as_typed<'a>(file: &'a str, working: &Path, words: &[String]) -> &'a str {
    let (Some(text), Some(_)) = (working.to_str(), working.parent()) else {
        return file;
    };
    let inner = file
        .strip_prefix(text)
        .and_then(|rest| rest.strip_prefix('/'));
    match inner {
        Some(inner) if !inner.is_empty() && !words.iter().any(|word| word.contains(text)) => inner,
        _ => file,
    }
}

/// What to do about most faults of a kind.
fn usual(kind: Kind, command: &str) -> Option<String> {
    let told = match kind {
        Kind::Usage => return Some(format!("`shardloom {command} --help` says what it takes")),
        Kind::Io => "is the path right on every node, and may this user read and write there?",
        Kind::NoSpace => "free some room, or write to another disk",
        Kind::Corrupt => "copy, download or save it again",
        Kind::Strategy => {
            "is it the strategy of the job that saved the weights? `shardloom strategy show` prints it"
        }
        Kind::Config => "put it right in the configuration that is named",
        Kind::MissingShard => {
            "is it the directory that was meant, and is all of it there, on every node?"
        }
        Kind::Ambiguous => "give a path at which there is only the one that is meant",
        Kind::UnknownTensor => "`shardloom inspect` shows the names that there are",
        Kind::Shape if command == "import" => {
            "are weights, strategy and configuration of one model, and do --experts, --qkv, --ffn and --mla fit the \
             strategy's job? `shardloom inspect` and `shardloom strategy show` tell the shapes"
        }
        Kind::Shape => {
            "are weights, strategy and configuration of one model? `shardloom inspect` shows the shapes"
        }
        Kind::Dtype => "`shardloom inspect` shows the type of each tensor",
        Kind::Differs => "find out which of them is right, and give that alone",
        Kind::Unsupported => {
            "`shardloom formats` and `shardloom families` list what is read and written"
        }
        Kind::Mpi => {
            "the launcher's own messages may tell more; `shardloom doctor` tries this machine"
        }
        Kind::Internal => {
            "this is a mistake of the program: report it, with the command and this message"
        }
        _ => return None,
    };
    Some(told.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_they_were_typed() {
        let shown = |file: &'static str, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            as_typed(file, Path::new("/home/me"), &words)
        };
        assert_eq!(
            shown("/home/me/a/x.safetensors", &["--lora", "a"]),
            "a/x.safetensors"
        );
        assert_eq!(
            shown("/home/me/a/x", &["--lora=/home/me/a"]),
            "/home/me/a/x"
        );
        assert_eq!(shown("/home/men/a", &["a"]), "/home/men/a");
        assert_eq!(shown("/home/me", &["a"]), "/home/me");
        assert_eq!(shown("a/x", &["a"]), "a/x");
        assert_eq!(as_typed("/a", Path::new("/"), &[]), "/a");
    }

    #[test]
    fn a_hint_of_its_own_is_kept() {
        let own = Fault::new(Kind::Corrupt, "is none").hint("save it again");
        assert_eq!(said("unify", own).hint.as_deref(), Some("save it again"));
        let bare = said("unify", Fault::new(Kind::Usage, "is none"));
        assert_eq!(
            bare.hint.as_deref(),
            Some("`shardloom unify --help` says what it takes")
        );
    }
}
