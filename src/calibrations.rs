//! The calibrations of an artifact folder: for which samplers and numbers of steps `auto` policies
//! work, and how good they are.

use std::path::Path;

use crate::artifacts::Artifacts;
use crate::cache::{CachePolicy, PolicyError, PolicyInput, Schedules, calibration_file};
use crate::sampler::{Sampler, SamplerKind, Spacing};

/// A calibration beside the manifest.
#[derive(Debug)]
pub struct Calibration {
    /// The sampler that it is for.
    pub sampler: SamplerKind,
    /// Its timestep spacing.
    pub spacing: Spacing,
    /// The number of steps that it is for.
    pub steps: usize,
    /// What it holds, or why it cannot be used.
    pub schedules: Result<Schedules, PolicyError>,
}

/// The calibrations beside the manifest of `artifacts`, by their names.
pub fn calibrations(artifacts: &Artifacts) -> Vec<Calibration> {
    let Ok(folder) = std::fs::read_dir(&artifacts.path) else { return Vec::new() };
    let names = folder.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = names.filter_map(|name| parse(&name)).collect();
    found.sort_by_key(|(sampler, spacing, steps)| {
        (sampler.to_string(), spacing.to_string(), *steps)
    });
    let open = |(sampler, spacing, steps)| Calibration {
        sampler,
        spacing,
        steps,
        schedules: read(artifacts, sampler, spacing, steps),
    };
    found.into_iter().map(open).collect()
}

/// What a file of this name calibrates. Only the name that `auto` looks for counts.
fn parse(name: &str) -> Option<(SamplerKind, Spacing, usize)> {
    let parts = name.strip_prefix("calibration-")?.strip_suffix(".yaml")?;
    let (parts, steps) = parts.rsplit_once('-')?;
    let (sampler, spacing) = parts.rsplit_once('-')?;
    let (sampler, spacing) = (sampler.parse().ok()?, spacing.parse().ok()?);
    let steps = steps.parse().ok()?;
    let own = calibration_file(Path::new(""), sampler, spacing, steps);
    (own == Path::new(name)).then_some((sampler, spacing, steps))
}

fn read(
    artifacts: &Artifacts,
    sampler: SamplerKind,
    spacing: Spacing,
    steps: usize,
) -> Result<Schedules, PolicyError> {
    let policy = CachePolicy::usual(
        &artifacts.path,
        &artifacts.manifest.variant.cache,
        sampler,
        spacing,
        steps,
        0,
    );
    let refuse = |message: String| PolicyError { policy: policy.to_string(), message };
    let scheduler = &artifacts.manifest.model.scheduler;
    let made = Sampler::new(sampler, scheduler, spacing, steps);
    let made = made.map_err(|error| refuse(error.to_string()))?;
    let input = PolicyInput {
        timesteps: made.timesteps(),
        skipped: 0,
        sampler,
        spacing,
        guidance_scale: 0.0,
        folder: &artifacts.path,
        manifest_sha256: &artifacts.hash,
    };
    let path = calibration_file(&artifacts.path, sampler, spacing, steps);
    Schedules::read(&path, &input).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_auto_looks_for_are_calibrations() {
        let dpmms = (SamplerKind::Dpmms, Spacing::Linspace, 25);
        assert_eq!(parse("calibration-dpmms-linspace-25.yaml"), Some(dpmms));
        let euler = (SamplerKind::EulerAncestral, Spacing::Trailing, 8);
        assert_eq!(parse("calibration-euler-ancestral-trailing-8.yaml"), Some(euler));
        for name in [
            "calibration-dpmms-linspace-025.yaml",
            "calibration-dpmms-linspace-+25.yaml",
            "calibration-dpmms-linspace-25-2.yaml",
            "calibration-dpmms-linspace-25.yml",
            "calibration-heun-linspace-25.yaml",
            "calibration-dpmms-linspace.yaml",
            "manifest.yaml",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
