//! What holds where a flag isn't given: the environment's word, a file's, or the program's own.

use crate::cli::flags::moving::{MEMORY, THREADS};
use crate::cli::flags::size::parse_size;
use crate::exchange::World;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::measure::simulate::read_machine;
use crate::store::io::{self, ReadFile, Standing};
use crate::transport::THREADS_MAX;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Names the file; set and empty: none is read.
const FILE_VARIABLE: &str = "SHARDLOOM_CONFIG";
/// What the file is called where nothing names it.
const FILE_NAME: &str = "shardloom.toml";
/// Most bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// MPI implementations that may be meant.
pub(super) const MPIS: &[&str] = &["auto", "openmpi", "mpich", "none"];

/// Something that can be set.
pub(super) struct Key {
    /// Its name in the file; the flag is called so, too.
    pub(super) name: &'static str,
    /// The environment variable.
    pub(super) variable: &'static str,
    /// What holds by itself.
    pub(super) default: Option<&'static str>,
    /// What would fit.
    fits: &'static str,
    /// Whether a value, as text, fits.
    check: fn(&str) -> std::result::Result<(), String>,
}

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "memory",
        variable: "SHARDLOOM_MEMORY",
        default: Some(MEMORY),
        fits: "a size such as \"4GiB\", or a number of bytes",
        check: |text| parse_size(text).map(|_| ()),
    },
    Key {
        name: "threads",
        variable: "SHARDLOOM_THREADS",
        default: Some(THREADS),
        fits: "a whole number from 0 (the node's cores divided by its processes) to 1024",
        check: check_threads,
    },
    Key {
        name: "machine",
        variable: "SHARDLOOM_MACHINE",
        default: None,
        fits: "the name of a JSON file that describes a node, or a table such as { network_gbps = 25.0 }",
        check: |text| {
            let read = read_machine(Some(Path::new(text)));
            read.map(|_| ()).map_err(|fault| fault.to_string())
        },
    },
    Key {
        name: "mpi",
        variable: "SHARDLOOM_MPI",
        default: Some("auto"),
        fits: "auto, openmpi, mpich or none",
        check: |text| match MPIS.contains(&mpi(text)) {
            true => Ok(()),
            false => Err(format!("'{text}' is none of them")),
        },
    },
];

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// The environment variable of this name.
    Environment(&'static str),
    /// This file.
    File(PathBuf),
    /// The program itself.
    Default,
}

/// What is set, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// The file that would be read.
    pub(super) file: Option<PathBuf>,
    /// Whether it is there.
    pub(super) file_read: bool,
    /// By the key's name: the value, and where it is from.
    pub(super) values: BTreeMap<&'static str, (String, Origin)>,
}

fn check_threads(text: &str) -> std::result::Result<(), String> {
    match text.parse::<usize>() {
        Ok(threads) if threads <= THREADS_MAX => Ok(()),
        _ => Err(format!("'{text}' is no such number")),
    }
}

/// What is meant by the ways in which a build may have got its MPI.
pub(super) fn mpi(text: &str) -> &str {
    text.strip_prefix("wheel-").unwrap_or(text)
}

impl Settings {
    /// Reads file and environment. Local.
    ///
    /// # Errors
    /// [`Kind::Usage`] for what can't be a setting, with the file or the variable, the key and what would
    /// fit; [`Kind::Io`] for a file that can't be read.
    pub(super) fn read() -> Result<Settings> {
        let variable = |name: &str| std::env::var_os(name);
        let mut settings = Settings::default();
        if let Some((path, is_named)) = place(variable) {
            settings.read_file(&path, is_named)?;
            settings.file = Some(path);
        }
        for key in KEYS {
            let Some(value) = variable(key.variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let Some(value) = value.to_str() else {
                return Err(key.unfit("is not UTF-8").file(key.variable));
            };
            settings.set(
                key.name,
                value.to_owned(),
                Origin::Environment(key.variable),
            )?;
        }
        Ok(settings)
    }

    /// Takes a value, if it fits, in place of an earlier one.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(super) fn set(&mut self, name: &str, value: String, from: Origin) -> Result<()> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(unknown(name).file(from.to_string()));
        };
        let checked = (key.check)(&value);
        checked.map_err(|why| key.unfit(&why).file(from.to_string()))?;
        self.values.insert(key.name, (value, from));
        Ok(())
    }

    fn read_file(&mut self, path: &Path, is_named: bool) -> Result<()> {
        // Another user's home, which may not be entered, is one without a file.
        let stands = |path: &Path| io::standing(path).is_ok_and(|what| what != Standing::Nothing);
        if !is_named && !stands(path) {
            return Ok(());
        }
        let told = |fault: Fault| fault.hint("SHARDLOOM_CONFIG names another file; empty, none");
        let bytes = ReadFile::open(path).and_then(|file| file.read_all(FILE_BYTES_MAX));
        let bytes = bytes.map_err(told)?;
        let wrong =
            |message: String| Fault::new(Kind::Usage, message).file(path.display().to_string());
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8".into()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table = text.parse::<Table>().map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + newlines(text, span.start));
            let message = error.message().replace('\n', ", ");
            wrong(format!("line {line}: is no TOML: {message}"))
                .hint("a setting is a line such as memory = \"4GiB\"")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for (name, value) in table {
            let key = KEYS.iter().find(|key| key.name == name);
            let key = key.ok_or_else(|| unknown(&name).file(path.display().to_string()))?;
            let value = key.text(value, folder);
            let value = value.map_err(|why| key.unfit(&why).file(path.display().to_string()))?;
            self.set(key.name, value, Origin::File(path.to_path_buf()))?;
        }
        self.file_read = true;
        Ok(())
    }

    /// What is left of it beside the flags that were typed.
    pub(super) fn without(mut self, typed: &ArgMatches) -> Settings {
        let mut typed = typed;
        while let Some((_, inside)) = typed.subcommand() {
            typed = inside;
        }
        let given = |name: &&str| {
            let known = typed.ids().any(|id| id == name);
            known && typed.value_source(name) == Some(ValueSource::CommandLine)
        };
        self.values.retain(|name, _| !given(name));
        self
    }

    /// The command line, with what is set in place of the defaults of all flags that are called so.
    pub(super) fn given(&self, command: clap::Command) -> clap::Command {
        let mut command = command;
        for (name, (value, _)) in &self.values {
            if command.get_arguments().any(|flag| flag.get_id() == name) {
                // It lives as long as the command line does, which is to the end.
                let value: &'static str = value.clone().leak();
                command = command.mut_arg(*name, |flag| flag.default_value(value));
            }
        }
        command.mut_subcommands(|inside| self.given(inside))
    }

    /// A mark of what must be the same for all processes of a run.
    pub(super) fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for name in ["memory", "machine"] {
            self.values
                .get(name)
                .map(|(value, _)| value)
                .hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether this program is built for the MPI that is meant. Local.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(super) fn check_mpi(&self, given: &str) -> Result<()> {
        let library = World::library();
        let built = match library.as_str() {
            "no MPI" => "none",
            name if name.contains("Open MPI") => "openmpi",
            _ => "mpich",
        };
        let asked = mpi(given);
        // One process of a program that has an MPI needs no launcher.
        if ["auto", "none", built].contains(&asked) {
            return Ok(());
        }
        let by = self.values.get("mpi").filter(|(value, _)| value == given);
        let by = by.map_or_else(String::new, |(_, from)| format!(", says {from}"));
        let message =
            format!("mpi is to be {asked}{by}, and this program was built with {library}");
        Err(Fault::new(Kind::Usage, message)
            .hint("start the shardloom that was built with it, or leave the setting out"))
    }
}

impl Key {
    /// A value of the file as it would be typed.
    fn text(&self, value: Value, folder: &Path) -> std::result::Result<String, String> {
        let kind = value.type_str();
        match (self.name, value) {
            ("memory" | "threads", Value::Integer(number)) => Ok(number.to_string()),
            ("memory" | "mpi", Value::String(text)) => Ok(text),
            ("machine", Value::Table(table)) => {
                serde_json::to_string(&table).map_err(|error| error.to_string())
            }
            ("machine", Value::String(text)) if text.trim_start().starts_with('{') => Ok(text),
            ("machine", Value::String(text)) => {
                Ok(folder.join(text).to_string_lossy().into_owned())
            }
            _ => Err(format!(
                "is {} {kind}",
                if "aeiou".contains(&kind[..1]) {
                    "an"
                } else {
                    "a"
                }
            )),
        }
    }

    fn unfit(&self, why: &str) -> Fault {
        let message = format!("{}: {why}", self.name);
        Fault::new(Kind::Usage, message).hint(format!("{} is {}", self.name, self.fits))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Flag(name) => write!(out, "--{name}"),
            Origin::Environment(name) => out.write_str(name),
            Origin::File(path) => write!(out, "{}", path.display()),
            Origin::Default => out.write_str("by itself"),
        }
    }
}

impl Origin {
    /// What kind of place it is.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Origin::Flag(_) => "flag",
            Origin::Environment(_) => "environment",
            Origin::File(_) => "file",
            Origin::Default => "default",
        }
    }

    /// Its name; the program itself has none.
    pub(super) fn place(&self) -> Option<String> {
        Some(self.to_string()).filter(|_| *self != Origin::Default)
    }
}

fn unknown(name: &str) -> Fault {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let near = nearest(name, names.iter().copied());
    let near = near
        .first()
        .map_or_else(String::new, |near| format!("; {near} is meant?"));
    let message = format!("'{name}' is no setting{near}");
    Fault::new(Kind::Usage, message).hint(format!("the settings are {}", names.join(", ")))
}

fn newlines(text: &str, end: usize) -> usize {
    text.bytes().take(end).filter(|byte| *byte == b'\n').count()
}

/// The file to read, and whether somebody has named it.
fn place(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<(PathBuf, bool)> {
    if let Some(named) = variable(FILE_VARIABLE) {
        return Some((PathBuf::from(named), true)).filter(|(path, _)| !path.as_os_str().is_empty());
    }
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some((folder.join(FILE_NAME), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Settings> {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("s.toml");
        io::write_small(&path, text, false).unwrap();
        let mut settings = Settings::default();
        settings.read_file(&path, true).map(|()| settings)
    }

    #[test]
    fn a_file_sets_what_it_names_and_nothing_else() {
        let bom = b"\xef\xbb\xbf# mine\nmemory = \"2GiB\"\nthreads = 3\r\nmachine = { network_gbps = 12.5 }\n";
        let settings = read(bom).unwrap();
        assert_eq!(settings.values["memory"].0, "2GiB");
        assert_eq!(settings.values["threads"].0, "3");
        assert!(settings.values["machine"].0.contains("12.5"));
        assert!(!settings.values.contains_key("mpi"));
        assert!(read(b"").unwrap().values.is_empty());
        for (text, named) in [
            ("memry = 1", "memory is meant"),
            ("memory = \"5XB\"", "memory: "),
            ("memory = 0", "memory: "),
            ("memory = -4", "memory: "),
            ("memory = true", "memory: is a boolean"),
            ("threads = \"4\"", "threads: is a string"),
            ("threads = 4000", "threads: "),
            ("mpi = \"lam\"", "mpi: "),
            ("machine = { speed = 1 }", "machine: "),
            ("machine = \"none.json\"", "none.json"),
            ("memory = 1\nmemory = 2", "line 2"),
            ("[job]\nmemory = 1", "'job' is no setting"),
            ("memory 4", "line 1"),
        ] {
            let fault = read(text.as_bytes()).unwrap_err();
            assert!(fault.message.contains(named), "{text}: {fault}");
            assert!(fault.file.is_some() && fault.hint.is_some(), "{text}");
        }
        assert!(read(b"memory = \"\xff\"").is_err());
    }

    #[test]
    fn the_file_is_where_it_is_looked_for() {
        let found = |set: &[(&str, &str)]| {
            let place = place(|name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).into())
            });
            place.map(|(path, _)| path.display().to_string())
        };
        let home = ("HOME", "/h");
        assert_eq!(found(&[home]).unwrap(), "/h/.config/shardloom.toml");
        assert_eq!(
            found(&[home, ("XDG_CONFIG_HOME", "/x")]).unwrap(),
            "/x/shardloom.toml"
        );
        assert_eq!(
            found(&[home, ("XDG_CONFIG_HOME", "x")]).unwrap(),
            "/h/.config/shardloom.toml"
        );
        assert_eq!(
            found(&[home, ("SHARDLOOM_CONFIG", "a.toml")]).unwrap(),
            "a.toml"
        );
        assert_eq!(found(&[home, ("SHARDLOOM_CONFIG", "")]), None);
        assert_eq!(found(&[]), None);
    }
}
