//! Providers that are libraries of their own, which ONNX Runtime loads beside itself: a row of facts
//! for each that is known, and the bare name of any other.

use std::path::{Path, PathBuf};

use hydit_graphs::{GraphOptions, Precision};

use super::places::{Place, Places, entries};

/// A provider in a library of its own, and the precision that it shall compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub(super) facts: &'static Facts,
    precision: Option<&'static Compute>,
}

/// What hydit knows of a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its name in `--provider`.
    pub name: &'static str,
    /// ONNX Runtime's name of it; empty where it is not known.
    pub provider: &'static str,
    /// The file of its library.
    pub library: &'static str,
    /// The folder among a Python's packages that has the library.
    folder: &'static str,
    /// What pip installs.
    package: &'static str,
    /// Beginnings of the names of libraries beside its own, which must be loaded before it.
    pub needs: &'static [&'static str],
    /// Which devices it takes.
    pub devices: &'static str,
    /// What it can compute in whatever the graphs say, the usual one first; none where the graphs
    /// decide.
    computes: &'static [Compute],
    /// The precisions of graphs that it does not compute, or not well.
    lacks: &'static [Precision],
    /// Whether it computes ONNX Runtime's operators of fused attention as ONNX Runtime does.
    fuses: bool,
}

/// A precision and the options that ask for it; `{threads}` in them is the number of threads.
#[derive(Debug, PartialEq, Eq)]
struct Compute {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
}

/// The plugins that are known.
static KNOWN: [Facts; 3] = [
    Facts {
        name: "openvino",
        provider: "OpenVINOExecutionProvider",
        library: "libonnxruntime_providers_openvino_plugin.so",
        folder: "onnxruntime_ep_openvino",
        package: "onnxruntime-ep-openvino==1.8.1",
        needs: &[],
        devices: "it takes processors, GPUs and NPUs of Intel alone",
        computes: &[
            Compute {
                name: "fp32",
                options: &[(
                    "load_config",
                    r#"{"CPU":{"INFERENCE_PRECISION_HINT":"f32","INFERENCE_NUM_THREADS":"{threads}"},"GPU":{"INFERENCE_PRECISION_HINT":"f32"}}"#,
                )],
            },
            Compute {
                name: "bf16",
                options: &[(
                    "load_config",
                    r#"{"CPU":{"INFERENCE_PRECISION_HINT":"bf16","INFERENCE_NUM_THREADS":"{threads}"}}"#,
                )],
            },
            Compute {
                name: "fp16",
                options: &[(
                    "load_config",
                    r#"{"CPU":{"INFERENCE_PRECISION_HINT":"f16","INFERENCE_NUM_THREADS":"{threads}"},"GPU":{"INFERENCE_PRECISION_HINT":"f16"}}"#,
                )],
            },
        ],
        // int8 it takes, and is 3e-2 off, as far as engines may be and no faster than in fp32.
        lacks: &[Precision::Bf16, Precision::Int8, Precision::Fp8],
        // It takes them, and computes something else: 0.8 off.
        fuses: false,
    },
    Facts {
        name: "tensorrt-rtx",
        provider: "NvTensorRTRTXExecutionProvider",
        library: "libonnxruntime_providers_nv_tensorrt_rtx.so",
        folder: "onnxruntime_ep_nv_tensorrt_rtx",
        package: "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0",
        needs: &["libcudart.so.", "libtensorrt_rtx.so.", "libtensorrt_onnxparser_rtx.so."],
        devices: "it takes NVIDIA GPUs of compute capability 8.6, 8.9, 12.0 and newer, with a driver \
                  for CUDA 13",
        computes: &[],
        lacks: &[Precision::Int8],
        fuses: false,
    },
    Facts {
        name: "webgpu",
        provider: "WebGpuExecutionProvider",
        library: "libonnxruntime_providers_webgpu.so",
        folder: "onnxruntime_ep_webgpu",
        package: "onnxruntime-ep-webgpu==0.4.0",
        needs: &[],
        devices: "it takes GPUs that have a driver for Vulkan, with libvulkan.so.1",
        computes: &[],
        lacks: &[Precision::Bf16, Precision::Int8, Precision::Fp8],
        fuses: true,
    },
];

/// How a plugin is used. Other providers have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginOptions {
    /// Its library; looked for where pip puts it, and beside the program, if not given.
    pub library: Option<PathBuf>,
    /// Options of the provider by its own names, in place of those that hydit sets.
    pub options: Vec<(String, String)>,
    /// The device: `cpu`, `gpu`, `npu`, or `gpu:1` for the second of its kind. The only one if not
    /// given.
    pub device: Option<String>,
}

impl Plugin {
    /// The plugins that are known, each in its usual precision.
    pub fn known() -> impl Iterator<Item = Plugin> {
        KNOWN.iter().map(|facts| Plugin { facts, precision: facts.computes.first() })
    }

    /// The plugin that `text` names: `openvino`, or `openvino:bf16` with a precision that it shall
    /// compute in. A name that is not known is of a plugin whose library must be given. It stays in
    /// memory, so names come from people and not from requests.
    ///
    /// # Errors
    /// Says what was expected.
    pub(super) fn named(text: &str) -> Result<Plugin, String> {
        let (name, precision) = match text.split_once(':') {
            Some((name, precision)) => (name, Some(precision)),
            None => (text, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err("expected a name of letters, digits, - and _".to_string());
        }
        let facts = match KNOWN.iter().find(|facts| facts.name == name) {
            Some(facts) => facts,
            None => Box::leak(Box::new(Facts::of_other(name.to_string()))),
        };
        let Some(wanted) = precision else {
            return Ok(Plugin { facts, precision: facts.computes.first() });
        };
        let found = facts.computes.iter().find(|compute| compute.name == wanted);
        match found {
            Some(found) => Ok(Plugin { facts, precision: Some(found) }),
            None if facts.computes.is_empty() => {
                Err(format!("{name} computes in the precision of the graphs: leave out :{wanted}"))
            }
            None => {
                let names: Vec<&str> = facts.computes.iter().map(|compute| compute.name).collect();
                Err(format!("{name} computes in {}, and not in {wanted}", names.join(", ")))
            }
        }
    }

    /// The options that it is given: those of its precision, with a number of `threads` in them, but for
    /// those that `own` sets.
    pub(super) fn options(
        self,
        own: &[(String, String)],
        threads: impl std::fmt::Display,
    ) -> Vec<(String, String)> {
        let usual = self.precision.map_or(&[][..], |compute| compute.options);
        let usual = usual.iter().filter(|(key, _)| own.iter().all(|(set, _)| set != key)).map(
            |(key, value)| (key.to_string(), value.replace("{threads}", &threads.to_string())),
        );
        usual.chain(own.iter().cloned()).collect()
    }

    /// Whether it is one of those that are known.
    pub(super) fn is_known(self) -> bool {
        !self.facts.provider.is_empty()
    }

    /// Why it has not the operators of graphs built with `options`; `None` where it has, as far as
    /// is known.
    pub(crate) fn unfit(self, options: GraphOptions) -> Option<String> {
        let Facts { name, lacks, fuses, .. } = *self.facts;
        let GraphOptions { precision, target, .. } = options;
        if lacks.contains(&precision) {
            return Some(format!(
                "written in {precision}, which the {name} provider does not compute, or not well: export \
                 with --dtype fp32 or fp16"
            ));
        }
        (!fuses && target.has_fused_attention()).then(|| {
            format!(
                "written with ONNX Runtime's fused attention (form {target}), which the {name} provider \
                 has not, or computes otherwise: export with --optimize-for portable or tensorrt"
            )
        })
    }

    /// What to do when it is not available.
    pub(super) fn mend(self) -> String {
        if self.is_known() {
            format!(
                "`pip install {}` in .venv brings it, --ep-library names it elsewhere; or leave out \
                 --provider",
                self.facts.package
            )
        } else {
            "name its library with --ep-library; or leave out --provider".to_string()
        }
    }

    /// Where its library is: beside the program, or among the packages of the Python that has
    /// ONNX Runtime or of any other.
    pub(super) fn find(self, places: &Places, runtime: &Path) -> Option<PathBuf> {
        let Facts { library, folder, .. } = *self.facts;
        let beside = places.folders.iter().filter(|(place, _)| *place == Place::BesideProgram);
        let pythons = places.folders.iter().filter(|(place, _)| *place == Place::Python);
        let packages = runtime.parent().into_iter().chain(pythons.map(|(_, folder)| &**folder));
        // `onnxruntime/capi` lies in the folder of all packages.
        let packages = packages.filter_map(|capi| Some(capi.parent()?.parent()?.join(folder)));
        let folders = beside.map(|(_, folder)| folder.clone()).chain(packages);
        folders.map(|folder| folder.join(library)).find(|path| path.is_file())
    }

    /// The version of the package that has `library`, as pip has noted it.
    pub(super) fn version(self, library: &Path) -> Option<String> {
        let packages = library.parent()?.parent()?;
        let folder = self.facts.folder;
        let noted = |name: &str| name.starts_with(folder) && name.ends_with(".dist-info");
        let note = entries(packages, |name| !folder.is_empty() && noted(name)).pop()?;
        let (_, version) = note.file_stem()?.to_str()?.rsplit_once('-')?;
        Some(version.to_string())
    }
}

impl std::fmt::Display for Plugin {
    /// The name, with the precision unless it is the usual one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.facts.name)?;
        match self.precision {
            Some(compute) if self.facts.computes.first() != Some(compute) => {
                write!(f, ":{}", compute.name)
            }
            _ => Ok(()),
        }
    }
}

impl Facts {
    fn of_other(name: String) -> Facts {
        Facts {
            name: name.leak(),
            provider: "",
            library: "",
            folder: "",
            package: "",
            needs: &[],
            devices: "hydit does not know which devices it takes",
            computes: &[],
            lacks: &[],
            fuses: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_named_with_a_precision_that_it_has() {
        for name in ["openvino", "openvino:bf16", "tensorrt-rtx", "webgpu", "some_other-1"] {
            assert_eq!(Plugin::named(name).expect("a plugin").to_string(), name);
        }
        let usual = Plugin::named("openvino:fp32").expect("the usual precision");
        assert_eq!(usual, Plugin::named("openvino").expect("a plugin"));
        let refused = |name: &str| Plugin::named(name).expect_err("a refusal");
        assert_eq!(
            refused("openvino:int4"),
            "openvino computes in fp32, bf16, fp16, and not in int4"
        );
        assert!(refused("webgpu:fp16").contains("leave out :fp16"));
        assert!(refused("a/b").contains("letters, digits"));
    }

    #[test]
    fn an_option_of_ones_own_takes_the_place_of_that_of_the_precision() {
        let plugin = Plugin::named("openvino:bf16").expect("a plugin");
        let usual = plugin.options(&[("cache_dir".into(), "x".into())], 3);
        assert_eq!(usual[0].0, "load_config");
        assert!(usual[0].1.contains("bf16") && usual[0].1.contains(r#""3""#), "{usual:?}");
        assert_eq!(usual[1].0, "cache_dir");
        let own = [("load_config".to_string(), "{}".to_string())];
        assert_eq!(plugin.options(&own, 3), own);
    }
}
