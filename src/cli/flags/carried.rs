//! Flags that a command hands on, as they were typed, to the command that does its work.

use clap::error::Error;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};
use std::ffi::OsString;
use std::marker::PhantomData;

/// What was typed of the flags of `A`.
#[derive(Clone, Debug)]
pub(crate) struct Carried<A> {
    words: Vec<(String, OsString)>,
    of: PhantomData<A>,
}

impl<A> Carried<A> {
    /// Whether this flag was typed.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.words.iter().any(|(typed, _)| typed == flag)
    }

    /// What was typed behind this flag, as far as it is text.
    pub(crate) fn value(&self, flag: &str) -> Option<&str> {
        let (_, word) = self.words.iter().find(|(typed, _)| typed == flag)?;
        let (_, value) = word.to_str()?.split_once('=')?;
        Some(value)
    }

    /// What was typed, a word a flag, for a command that has them, too.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        self.words.iter().map(|(_, word)| word.clone())
    }
}

impl<A: Args> Args for Carried<A> {
    fn group_id() -> Option<Id> {
        A::group_id()
    }

    fn augment_args(command: Command) -> Command {
        A::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        A::augment_args_for_update(command)
    }
}

impl<A: Args> FromArgMatches for Carried<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let known = A::augment_args(Command::new("carried"));
        let mut words = Vec::new();
        for flag in known.get_arguments() {
            let id = flag.get_id().as_str();
            let Some(long) = flag.get_long() else {
                continue;
            };
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let long = format!("--{long}");
            if !flag.get_action().takes_values() {
                words.push((long.clone(), long.into()));
                continue;
            }
            for value in matches.get_raw(id).into_iter().flatten() {
                let mut word = OsString::from(format!("{long}="));
                word.push(value);
                words.push((long.clone(), word));
            }
        }
        Ok(Carried {
            words,
            of: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Carried::from_arg_matches(matches)?;
        Ok(())
    }
}
