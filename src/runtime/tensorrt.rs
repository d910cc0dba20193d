//! What TensorRT, as a provider that is built into ONNX Runtime, keeps of the engines that it builds.

use std::fs;
use std::path::{Path, PathBuf};

use hydit_input::file;
use serde::{Deserialize, Serialize};

use super::CompiledFor;
use super::provider::Provider;
use crate::util::sha256;

/// Where NVIDIA's driver tells of its GPUs: a folder for each.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// Largest of the driver's files that is read.
const MAX_INFORMATION: u64 = 1 << 16;

/// Where TensorRT keeps the engines of a graph, and which shapes they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineCache {
    /// The folder, which has the times of kernels too: all graphs share them, so that none is timed
    /// twice.
    pub folder: PathBuf,
    /// What the names of its files begin with; TensorRT's name of the graph if not given, which does
    /// not tell weights apart.
    pub prefix: Option<String>,
    /// The shapes. With them an engine is built or read when the graph is loaded, and runs of other
    /// shapes are refused; without, it is built anew whenever a run brings a shape that is none of
    /// its own yet.
    pub profile: Option<Profile>,
}

/// The least, the usual and the largest shape of every input that has more than one, as TensorRT's
/// options have them: `latents:1x4x16x16,timestep:1`. Empty for a graph without such inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Each axis as small as any run has it.
    pub min: String,
    /// Those of the run that kernels are chosen for.
    pub opt: String,
    /// Each axis as large as any run has it.
    pub max: String,
}

impl EngineCache {
    /// The provider's options by its own names.
    #[cfg(any(feature = "cuda", test))]
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.display().to_string();
        let mut options = vec![
            ("trt_engine_cache_enable", "1".to_string()),
            ("trt_engine_cache_path", folder.clone()),
            ("trt_timing_cache_enable", "1".to_string()),
            ("trt_timing_cache_path", folder),
        ];
        options.extend(self.prefix.clone().map(|prefix| ("trt_engine_cache_prefix", prefix)));
        if let Some(Profile { min, opt, max }) = &self.profile
            && !min.is_empty()
        {
            options.extend([
                ("trt_profile_min_shapes", min.clone()),
                ("trt_profile_opt_shapes", opt.clone()),
                ("trt_profile_max_shapes", max.clone()),
            ]);
        }
        options
    }
}

/// What engines are for that the provider's library `provider` builds here, with this version of ONNX
/// Runtime. TensorRT's own version is not among it: TensorRT itself refuses engines of another.
///
/// # Errors
/// The library cannot be read.
pub(super) fn compiled_for(onnxruntime: &str, provider: &Path) -> Result<CompiledFor, String> {
    let version = file::open(provider).and_then(|mut file| sha256(&mut file));
    Ok(CompiledFor {
        onnxruntime: onnxruntime.to_string(),
        provider: Provider::TensorRt.to_string(),
        version: version.map_err(|error| format!("{}: {error}", provider.display()))?,
        device: gpus(Path::new(GPUS)),
        options: Default::default(),
    })
}

/// The models of the GPUs that the driver tells of in `folder`, each once: `NVIDIA H100 PCIe`.
fn gpus(folder: &Path) -> String {
    let model = |gpu: fs::DirEntry| {
        let text = file::read_text(&gpu.path().join("information"), MAX_INFORMATION).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_string())
    };
    let mut models: Vec<String> =
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(model).collect();
    models.sort();
    models.dedup();
    if models.is_empty() {
        "a GPU of which the driver tells nothing".into()
    } else {
        models.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_goes_with_the_cache_that_is_built_for_it() {
        let folder = PathBuf::from("/var/engines");
        let cache = EngineCache { folder, ..Default::default() };
        let common = [
            ("trt_engine_cache_enable", "1".to_string()),
            ("trt_engine_cache_path", "/var/engines".to_string()),
            ("trt_timing_cache_enable", "1".to_string()),
            ("trt_timing_cache_path", "/var/engines".to_string()),
        ];
        assert_eq!(cache.options(), common);
        let profile = Profile { min: "x:1".into(), opt: "x:2".into(), max: "x:4".into() };
        let prefix = Some("deep-core-0123".to_string());
        let named = EngineCache { prefix, profile: Some(profile), ..cache };
        let more = [
            ("trt_engine_cache_prefix", "deep-core-0123".to_string()),
            ("trt_profile_min_shapes", "x:1".to_string()),
            ("trt_profile_opt_shapes", "x:2".to_string()),
            ("trt_profile_max_shapes", "x:4".to_string()),
        ];
        assert_eq!(named.options(), [&common[..], &more[..]].concat());
        // A graph without free shapes has no profile: an empty one is no option.
        let fixed = EngineCache { profile: Some(Profile::default()), ..named };
        assert_eq!(fixed.options(), [&common[..], &more[..1]].concat());
    }

    #[test]
    fn engines_are_for_the_models_of_gpus_that_the_driver_tells_of() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(gpus(&folder.path().join("none")), "a GPU of which the driver tells nothing");
        for (bus, model) in
            [("0:1", "NVIDIA H100 PCIe"), ("0:2", "NVIDIA A10"), ("0:3", "NVIDIA A10")]
        {
            let gpu = folder.path().join(bus);
            fs::create_dir(&gpu).expect("a folder");
            let text = format!("Model: \t\t {model}\nIRQ:   \t\t 57\n");
            fs::write(gpu.join("information"), text).expect("written");
        }
        assert_eq!(gpus(folder.path()), "NVIDIA A10, NVIDIA H100 PCIe");
        let library = folder.path().join("provider.so");
        assert!(compiled_for("1.31.1", &library).is_err());
        fs::write(&library, "a").expect("written");
        let one = compiled_for("1.31.1", &library).expect("read");
        fs::write(&library, "b").expect("written");
        assert_ne!(one.version, compiled_for("1.31.1", &library).expect("read").version);
        assert_eq!(one.provider, "tensorrt");
    }
}
