//! The choice of a variant from those of [`hydit_models`], or from a file.

use std::path::Path;

use hydit_graphs::config::TransformerConfig;
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::variant::{MAX_SIDE, RopeConvention, Variant};
use hydit_models::{DIT, GENERIC, SKIP_DIT, VARIANTS};

use crate::error::{Error, Result};
use crate::files::read_text;
use crate::options::Options;
use hydit_graphs::naming::Naming;

/// Chooses the variant that was asked for, by its name or as a YAML file; without one, the variant
/// that matches the transformer's config and the `names` of the checkpoint, or else `generic`,
/// `dit` or `skip-dit`, with the image size that this implies.
///
/// # Errors
/// There is no such variant, or its defaults are not for a model of `config`.
pub(crate) fn choose(options: &Options, config: &ModelConfig, names: &[String]) -> Result<Variant> {
    by_name(options.variant.as_deref(), config, names)
}

/// Where the model of `config` is cut: where the options say, or else where `variant` has it, or as
/// deep as a smaller model can be.
pub(crate) fn cut(options: &Options, config: &ModelConfig, variant: &Variant) -> usize {
    let deepest = *config.transformer.cache_branches().end();
    options.cache_at_branch.unwrap_or(variant.cache.branch.min(deepest))
}

/// Has the variant, where the references differ, follow the one that was asked for, or else the one
/// in whose names the transformer is stored.
pub(crate) fn read_as(options: &Options, naming: Naming, mut variant: Variant) -> Variant {
    let asked = options.variant.as_deref();
    let from_file = asked.is_some_and(|name| name.ends_with(".yaml"));
    if let Some(reading) = options.reading {
        variant.rope_convention = reading;
    } else if naming == Naming::Tencent && !from_file {
        variant.rope_convention = RopeConvention::Tencent;
    }
    variant
}

fn by_name(asked: Option<&str>, config: &ModelConfig, names: &[String]) -> Result<Variant> {
    let Some(name) = asked else {
        let mut known = VARIANTS.iter().map(|(_, text)| parse(text));
        let matching = known.find(|variant| variant.matches(&config.transformer, names));
        let variant = matching.unwrap_or_else(|| generic(config));
        return check(variant, config, Error::Disagree);
    };
    if name.ends_with(".yaml") {
        let path = Path::new(name);
        let text = read_text(path, "--variant takes a known name or a YAML file")?;
        let variant = Variant::from_yaml(&text).map_err(Error::content(path))?;
        return check(variant, config, Error::content(path));
    }
    let refuse = |message| Error::Flag { flag: "variant", message };
    match VARIANTS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => check(parse(text), config, refuse),
        None => {
            let names = VARIANTS.map(|(name, _)| name).join(", ");
            Err(refuse(format!("`{name}` is not one of {names}, nor a .yaml file")))
        }
    }
}

/// `generic`, or `dit` or `skip-dit` of a model of classes, for the model's largest image.
fn generic(config: &ModelConfig) -> Variant {
    let shape = config.transformer.shape();
    let (factor, patch) = (config.vae.factor(), shape.patch_size);
    let latents = shape.sample_size.min(MAX_SIDE / factor);
    let mut generic = parse(match &config.transformer {
        TransformerConfig::HunyuanDit(_) => GENERIC,
        TransformerConfig::Dit(cfg) if cfg.has_long_skips() => SKIP_DIT,
        TransformerConfig::Dit(_) => DIT,
    });
    generic.defaults.image_size = [(latents / patch).max(1) * patch * factor; 2];
    generic
}

/// The variant, if its defaults are for a model of `config`.
fn check(
    variant: Variant,
    config: &ModelConfig,
    refuse: impl FnOnce(String) -> Error,
) -> Result<Variant> {
    match variant.validate(config) {
        Ok(()) => Ok(variant),
        Err(error) => Err(refuse(format!("variant {}: {error}", variant.name.escape_debug()))),
    }
}

fn parse(text: &str) -> Variant {
    Variant::from_yaml(text).expect("a test parses the variants of this build")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_file_parses_and_has_its_name() {
        for (name, text) in VARIANTS {
            let variant =
                Variant::from_yaml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(variant.name, name);
        }
    }
}
