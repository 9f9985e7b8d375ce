//! The options of the engine by their names: which of them somebody gave, and arguments made of a list of them.

use anyhow::{anyhow, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use protoseg_bench::tuning::EngineSettings;
pub(crate) use protoseg_bench::tuning::space::ON;

use super::engine_args::EngineArgs;

/// Options by their names without dashes, and what they are set to; [`ON`] where they take no value.
pub(crate) type EngineOptionMap = EngineSettings;

const OFF: &str = "off";

/// How a model is run, and which of that was given.
#[derive(Debug, Clone)]
pub(crate) struct EngineFlags {
    pub(crate) arguments: EngineArgs,
    /// Those that were given, on the command line or in the environment.
    pub(crate) given: EngineOptionMap,
}

impl Args for EngineFlags {
    fn augment_args(command: Command) -> Command {
        EngineArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        EngineArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for EngineFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { arguments: EngineArgs::from_arg_matches(matches)?, given: given(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn given(matches: &ArgMatches) -> EngineOptionMap {
    let command = EngineArgs::augment_args(Command::new("engine"));
    let mut given = EngineOptionMap::new();
    for argument in command.get_arguments() {
        let (id, Some(name)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
        if !matches!(
            matches.value_source(id),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            given.extend(matches.get_flag(id).then(|| (name.to_owned(), ON.to_owned())));
        } else if let Some(mut values) = matches.get_raw(id) {
            given.extend(
                values
                    .next_back()
                    .map(|value| (name.to_owned(), value.to_string_lossy().into_owned())),
            );
        }
    }
    given
}

impl EngineArgs {
    /// The arguments that a list of options makes, and nothing else.
    pub(crate) fn from_settings(options: &EngineOptionMap) -> anyhow::Result<Self> {
        let command = Self::augment_args(Command::new("engine").no_binary_name(true));
        let mut words = Vec::new();
        for (name, value) in options {
            let argument =
                command.get_arguments().find(|argument| argument.get_long() == Some(name.as_str()));
            let Some(argument) = argument else {
                let known: Vec<&str> =
                    command.get_arguments().filter_map(clap::Arg::get_long).collect();
                bail!(
                    "there is no option `{name}` of how a model is run; there are {}",
                    known.join(", ")
                );
            };
            match (matches!(argument.get_action(), ArgAction::SetTrue), value.as_str()) {
                (false, value) => words.push(format!("--{name}={value}")),
                (true, ON) => words.push(format!("--{name}")),
                (true, OFF) => {}
                (true, _) => bail!("{name} is {ON} or {OFF}, not {value}"),
            }
        }
        let matches =
            command.try_get_matches_from(words).map_err(|error| anyhow!(first_line(&error)))?;
        Self::from_arg_matches(&matches).map_err(|error| anyhow!(first_line(&error)))
    }
}

/// What clap says, without its advice on usage.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> EngineOptionMap {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_given_is_told_from_what_is_not() {
        let command = EngineFlags::augment_args(Command::new("engine"));
        let matches = command
            .try_get_matches_from(["engine", "--threads", "2", "--spin", "--window=768:512"])
            .unwrap();
        let found = EngineFlags::from_arg_matches(&matches).unwrap();
        assert_eq!(
            found.given,
            options(&[("spin", "on"), ("threads", "2"), ("window", "768:512")])
        );
        let again = EngineArgs::from_settings(&found.given).unwrap();
        assert_eq!(format!("{again:?}"), format!("{:?}", found.arguments));
    }

    #[test]
    fn options_are_checked_as_on_the_command_line() {
        let message = |pairs: &[(&str, &str)]| {
            EngineArgs::from_settings(&options(pairs)).unwrap_err().to_string()
        };
        assert!(message(&[("thread", "2")]).contains("there is no option `thread`"));
        assert!(message(&[("threads", "0")]).contains("write a number from 1 to 1024"));
        assert!(message(&[("spin", "yes")]).contains("spin is on or off, not yes"));
        let none = EngineArgs::from_settings(&options(&[("spin", "off")])).unwrap();
        assert_eq!(
            format!("{none:?}"),
            format!("{:?}", EngineArgs::from_settings(&EngineOptionMap::new()).unwrap())
        );
    }
}
