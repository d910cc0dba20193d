//! Flags over environment over file over defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use hydit_graphs::parse_yaml;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{Options, Settings};

/// The options of the command line and the environment, and which of them were given there.
#[derive(Clone, Debug)]
pub struct Flags {
    options: Options,
    given: BTreeMap<String, Source>,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The file.
    File,
    /// Nobody gave it.
    Default,
}

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As it is called in the file.
    pub name: String,
    /// As it is written there; secrets are hidden.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// Settings that cannot be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum SettingsError {
    #[error("--config {path}: {message}")]
    File { path: String, message: String },
    #[error("--{flag} {value} ({source_of}): {message}")]
    Setting { flag: String, value: String, source_of: Source, message: String },
}

impl Flags {
    /// All settings in effect, and where each comes from. Of `file` the text is given too.
    ///
    /// # Errors
    /// The file or the setting that is wrong.
    pub fn resolve(
        self,
        file: Option<(&Path, &str)>,
    ) -> Result<(Settings, Vec<Setting>), SettingsError> {
        let Flags { options, given: mut sources } = self;
        let mut values = to_map(&options);
        if let Some((path, text)) = file {
            let wrong = |message| SettingsError::File { path: path.display().to_string(), message };
            let all =
                to_map(&parse_yaml::<Options>(text).map_err(|error| wrong(error.to_string()))?);
            let named: BTreeMap<String, IgnoredAny> =
                parse_yaml(text).map_err(|error| wrong(error.to_string()))?;
            for (name, value) in all {
                if named.contains_key(&name) && !sources.contains_key(&name) {
                    sources.insert(name.clone(), Source::File);
                    values.insert(name, value);
                }
            }
        }
        let options: Options =
            serde_json::from_value(Value::Object(values)).expect("each value was an option's");
        let options = options.complete();
        let told: Vec<Setting> = to_map(&options)
            .into_iter()
            .map(|(name, value)| {
                let source = sources.get(&name).copied().unwrap_or(Source::Default);
                Setting { value: written(&name, &value), name, source }
            })
            .collect();
        match options.settings().and_then(|settings| settings.check().map(|()| settings)) {
            Ok(settings) => Ok((settings, told)),
            Err((name, message)) => {
                let setting = told.into_iter().find(|setting| setting.name == name);
                let Setting { name, value, source } = setting.expect("checks name settings");
                let flag = name.replace('_', "-");
                Err(SettingsError::Setting { flag, value, source_of: source, message })
            }
        }
    }
}

fn to_map(options: &Options) -> Map<String, Value> {
    match serde_json::to_value(options) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("options are a struct of plain values"),
    }
}

fn written(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_string(),
        Value::Array(items) if name == "api_key" => vec!["***"; items.len()].join(","),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(",")
        }
        other => other.to_string(),
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        Options::augment(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, Error> {
        let options = Options::from_arg_matches(matches)?;
        let source = |name: &String| match matches.value_source(name)? {
            ValueSource::CommandLine => Some(Source::Flag),
            ValueSource::EnvVariable => Some(Source::Environment),
            _ => None,
        };
        let given = to_map(&options)
            .into_iter()
            .filter_map(|(name, _)| source(&name).map(|source| (name, source)))
            .collect();
        Ok(Flags { options, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "flag",
            Source::Environment => "environment",
            Source::File => "file",
            Source::Default => "default",
        })
    }
}
