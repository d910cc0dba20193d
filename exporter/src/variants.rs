//! The choice of a variant from those of [`hydit_models`], or from a file.

use std::path::Path;

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::variant::Variant;
use hydit_models::{GENERIC, VARIANTS};

use crate::error::{Error, Result};
use crate::files::read_text;

/// Chooses the variant that was asked for, by its name or as a YAML file; without one, the variant
/// that matches `cfg`, or else `generic` with the image size that the config implies.
pub(crate) fn choose(
    asked: Option<&str>,
    cfg: &HunyuanDitConfig,
    vae_factor: usize,
) -> Result<Variant> {
    let Some(name) = asked else {
        let mut known = VARIANTS.iter().map(|(_, text)| parse(text));
        return Ok(known.find(|variant| variant.matches(cfg)).unwrap_or_else(|| {
            let mut generic = parse(GENERIC);
            generic.defaults.image_size = [cfg.sample_size * vae_factor; 2];
            generic
        }));
    };
    if name.ends_with(".yaml") {
        let path = Path::new(name);
        let text = read_text(path, "--variant takes a known name or a YAML file")?;
        return Variant::from_yaml(&text).map_err(Error::content(path));
    }
    let known = VARIANTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, text)| parse(text)).ok_or_else(|| {
        let names = VARIANTS.map(|(name, _)| name).join(", ");
        let message = format!("`{name}` is not one of {names}, nor a .yaml file");
        Error::Flag { flag: "variant", message }
    })
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
