//! The variants this build knows, from [`hydit_models`].

use std::path::Path;

use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::variant::Variant;
use hydit_models::{GENERIC, VARIANTS};

use crate::checkpoint::read_text;
use crate::error::{Error, Result};

/// Names of the known variants.
pub fn names() -> Vec<&'static str> {
    VARIANTS.iter().map(|(name, _)| *name).collect()
}

/// The variant asked for (a name, or a YAML file), or the one that recognises `cfg`, or `generic`
/// with the size the config names.
pub fn choose(asked: Option<&str>, cfg: &HunyuanDitConfig, vae_factor: usize) -> Result<Variant> {
    match asked {
        Some(name) if name.ends_with(".yaml") => {
            let path = Path::new(name);
            let text = read_text(path, "--variant takes a known name or a YAML file")?;
            Variant::from_yaml(&text)
                .map_err(|message| Error::File { path: path.to_path_buf(), message })
        }
        Some(name) => match VARIANTS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Ok(parse(text)),
            None => {
                let message =
                    format!("`{name}` is not one of {}, nor a .yaml file", names().join(", "));
                Err(Error::Flag { flag: "variant", message })
            }
        },
        None => {
            let mut known = VARIANTS.iter().map(|(_, text)| parse(text));
            Ok(known.find(|variant| variant.matches(cfg)).unwrap_or_else(|| {
                let mut generic = parse(GENERIC);
                generic.defaults.image_size = [cfg.sample_size * vae_factor; 2];
                generic
            }))
        }
    }
}

fn parse(text: &str) -> Variant {
    Variant::from_yaml(text).expect("the variants of this build are checked by a test")
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
