//! Which MPI is to be taken, as a flag, the environment or the file of settings says.

use crate::Wrong;
use crate::libraries::Build;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The build that is asked for; none where it is to be found out.
pub(crate) fn asked(
    args: &[OsString],
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Build>, Wrong> {
    let word = flag(args).or_else(|| get("SHARDLOOM_MPI")).or_else(|| {
        let file = file(get)?;
        let small = fs::metadata(&file).ok()?.len() <= FILE_BYTES_MAX;
        let text = small.then(|| fs::read_to_string(&file).ok()).flatten()?;
        in_file(&text)
    });
    let Some(word) = word else { return Ok(None) };
    match word.strip_prefix("wheel-").unwrap_or(&word) {
        "auto" => Ok(None),
        "none" => Ok(Some(Build::Alone)),
        "openmpi" => Ok(Some(Build::OpenMpi)),
        "mpich" => Ok(Some(Build::Mpich)),
        _ => Err(Wrong {
            message: format!("mpi is to be '{word}', which is no MPI that is known"),
            hint: "--mpi, SHARDLOOM_MPI, and mpi in shardloom.toml, may be auto, openmpi, mpich or none"
                .to_owned(),
        }),
    }
}

/// The value of `--mpi`.
fn flag(args: &[OsString]) -> Option<String> {
    let mut words = args.iter().map(|word| word.to_str().unwrap_or_default());
    words
        .find_map(|word| word.strip_prefix("--mpi=").map(str::to_owned))
        .or_else(|| {
            let at = args.iter().position(|word| word == "--mpi")?;
            args.get(at + 1)?.to_str().map(str::to_owned)
        })
}

fn file(get: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("SHARDLOOM_CONFIG") {
        return (!named.is_empty()).then(|| PathBuf::from(named));
    }
    let folder = get("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(get("HOME")?).join(".config")))?;
    Some(folder.join("shardloom.toml"))
}

/// The value of `mpi` in a file of settings; the program itself complains of what is wrong in it.
fn in_file(text: &str) -> Option<String> {
    let top = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with('['));
    let mut values = top.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().trim_matches(['"', '\'']);
        let value = value.trim();
        let quote = value
            .chars()
            .next()
            .filter(|quote| ['"', '\''].contains(quote))?;
        let (value, _) = value.get(1..)?.split_once(quote)?;
        (key == "mpi").then(|| value.to_owned())
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_key_of_the_file() {
        let text = "memory = \"4GiB\"\n# mpi = \"none\"\nmpi = 'mpich' # here\n";
        assert_eq!(in_file(text).as_deref(), Some("mpich"));
        assert_eq!(in_file("[other]\nmpi = \"mpich\"\n"), None);
        assert_eq!(in_file("mpi = 3\n"), None);
    }

    #[test]
    fn takes_the_environment_before_the_file() {
        let set = |word: &'static str| {
            move |name: &str| (name == "SHARDLOOM_MPI").then(|| word.to_owned())
        };
        assert_eq!(asked(&[], &set("wheel-mpich")), Ok(Some(Build::Mpich)));
        assert_eq!(asked(&[], &set("auto")), Ok(None));
        assert!(asked(&[], &set("lam")).is_err());
        let one = ["--mpi=none".into()];
        assert_eq!(asked(&one, &set("lam")), Ok(Some(Build::Alone)));
        let two = ["diff".into(), "--mpi".into(), "openmpi".into()];
        assert_eq!(asked(&two, &set("mpich")), Ok(Some(Build::OpenMpi)));
    }
}
