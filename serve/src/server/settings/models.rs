//! Names of models: what `--model`, `--model-alias` and `--engines` say, each with a name before a `=`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names and folders of models, in order.
pub fn models(given: &[String]) -> Result<Vec<(String, PathBuf)>, String> {
    let mut models: Vec<(String, PathBuf)> = Vec::new();
    for text in given {
        let (name, folder) = match text.split_once('=') {
            Some((name, folder)) => (name.to_string(), PathBuf::from(folder)),
            None => (folder_name(Path::new(text)).unwrap_or_default(), PathBuf::from(text)),
        };
        if !is_model_name(&name) {
            return Err(format!("{text}: {MODEL_NAME}; write NAME=DIR"));
        }
        if is_known(&name, &models) {
            return Err(format!("two models are called {name}; write NAME=DIR"));
        }
        models.push((name, folder));
    }
    Ok(models)
}

/// Folders of engines of `models`.
pub fn engines(
    given: &[String],
    models: &[(String, PathBuf)],
) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut engines = BTreeMap::new();
    for text in given {
        let (model, folder) = match (text.split_once('='), models) {
            (Some(named), _) => named,
            (None, [(only, _)]) => (only.as_str(), text.as_str()),
            (None, _) => return Err(format!("{text}: there are several models; write NAME=DIR")),
        };
        check_known(text, model, models)?;
        if engines.insert(model.to_string(), PathBuf::from(folder)).is_some() {
            return Err(format!("{text}: {model} has engines already"));
        }
    }
    Ok(engines)
}

/// Other names of `models`.
pub fn aliases(
    given: &[String],
    models: &[(String, PathBuf)],
) -> Result<BTreeMap<String, String>, String> {
    let mut aliases = BTreeMap::new();
    for text in given {
        let (alias, model) =
            text.split_once('=').ok_or_else(|| format!("{text}: write NAME=MODEL"))?;
        if !is_model_name(alias) {
            return Err(format!("{text}: {MODEL_NAME}; write NAME=MODEL"));
        }
        check_known(text, model, models)?;
        if is_known(alias, models) || aliases.insert(alias.to_string(), model.to_string()).is_some()
        {
            return Err(format!("{text}: {alias} is the name of a model already"));
        }
    }
    Ok(aliases)
}

/// Checks that `text` names one of `models` by `model`.
fn check_known(text: &str, model: &str, models: &[(String, PathBuf)]) -> Result<(), String> {
    if is_known(model, models) {
        Ok(())
    } else {
        Err(format!("{text}: there is no --model {model}"))
    }
}

fn is_known(name: &str, models: &[(String, PathBuf)]) -> bool {
    models.iter().any(|(model, _)| model == name)
}

/// What [`is_model_name`] wants.
const MODEL_NAME: &str = "a model's name is 1 to 96 of A-Z a-z 0-9 . _ - : and single / inside";

/// Whether a model may be called so: safe in logs and paths. It may look like `owner/name:tag`.
fn is_model_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    let part = |part: &str| !["", ".", ".."].contains(&part) && part.bytes().all(plain);
    text.len() <= 96 && text.split('/').all(part)
}

fn folder_name(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    Some(folder.file_name()?.to_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_as_its_folder_unless_it_has_a_name() {
        let given = ["artifacts/emoji/".to_string(), "big=/m/full".to_string()];
        let named = models(&given).expect("good names");
        assert_eq!((named[0].0.as_str(), named[1].0.as_str()), ("emoji", "big"));
        assert_eq!(named[1].1, PathBuf::from("/m/full"));
        assert!(models(&["a/emoji".to_string(), "b/emoji".to_string()]).is_err());
        assert!(models(&["a b=dir".to_string()]).is_err());
    }

    #[test]
    fn a_model_has_other_names_and_names_may_look_as_on_the_hub() {
        let models = models(&["tencent/dit:v1.2=dir".to_string(), "emoji=dir".to_string()]);
        let models = models.expect("good names");
        let read = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            aliases(&given, &models)
        };
        let good = read(&["gpt-image-1=emoji", "openai/dall-e-3=tencent/dit:v1.2"]).expect("good");
        assert_eq!(good["gpt-image-1"], "emoji");
        assert_eq!(good["openai/dall-e-3"], "tencent/dit:v1.2");
        for (bad, words) in [
            (&["gpt-image-1"][..], "write NAME=MODEL"),
            (&["a=other"], "there is no --model other"),
            (&["emoji=emoji"], "emoji is the name of a model already"),
            (&["a=emoji", "a=emoji"], "a is the name of a model already"),
            (&["=emoji"], "a model's name is"),
            (&["a//b=emoji"], "a model's name is"),
            (&["/a=emoji"], "a model's name is"),
            (&["a/..=emoji"], "a model's name is"),
            (&["a b=emoji"], "a model's name is"),
        ] {
            let told = read(bad).expect_err("it is refused");
            assert!(told.contains(words), "{told}");
        }
    }
}
