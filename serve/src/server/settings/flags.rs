//! Flags over environment over file over defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::options::Options;
use super::resolved::Settings;

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
    /// The setting's default.
    Default,
}

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the setting in the file.
    pub name: String,
    /// Value as it is written there; secrets are hidden.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file of settings is wrong.
    #[error("--config {path}: {message}")]
    File {
        /// Path of the file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A setting is wrong.
    #[error("--{flag} {value} ({source_of}): {message}")]
    Setting {
        /// Name of its flag.
        flag: String,
        /// Its value.
        value: String,
        /// Where the value comes from: the name of the variable, or the word for the source.
        source_of: String,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl Flags {
    /// All settings in effect, and where each comes from. `file` is the path and the text of a
    /// file.
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
            let (options, named) = read(text).map_err(wrong)?;
            for (name, value) in to_map(&options) {
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
                let source_of = match source {
                    Source::Environment => format!("HYDIT_{}", name.to_uppercase()),
                    source => source.to_string(),
                };
                let flag = name.replace('_', "-");
                Err(SettingsError::Setting { flag, value, source_of, message })
            }
        }
    }
}

/// Reads a file: the options in it, and which it names. One without a value, as templates make them
/// of what is not set, counts as not named, unless it would be a secret.
fn read(text: &str) -> Result<(Options, Map<String, Value>), String> {
    let options = parse(text);
    let mut named: Map<String, Value> = parse(text)?;
    let empty = [Value::Null, json!(""), json!([])];
    for name in ["api_key", "api_keys_file"] {
        if named.get(name).is_some_and(|value| empty.contains(value)) {
            let why = "it is empty, which would let anyone in; give it a value, or leave it out";
            return Err(format!("{name}: {why}"));
        }
    }
    let count = named.len();
    named.retain(|_, value| !value.is_null());
    if named.len() == count {
        return Ok((options?, named)); // or an error that tells the line
    }
    let options = serde_json::from_value(Value::Object(named.clone()));
    Ok((options.map_err(|error| error.to_string())?, named))
}

/// Parses YAML. An error is one line with line, column and setting.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
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
