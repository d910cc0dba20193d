//! A plugin that is registered with ONNX Runtime, and the device of it that sessions use.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use hydit_graphs::context::with_words_alone;
use hydit_input::{file, quoted};
use ort::{
    device::{CompatibilityInfo, Device, DeviceCompatibility},
    environment::Environment,
    ep::ExecutionProvider,
    memory::DeviceType,
    session::builder::SessionBuilder,
};

use super::compiled::{AnyProvider, Compatibility, CompiledFor};
use super::places::{Places, entries};
use super::{Plugin, PluginOptions, Provider, RuntimeError, elf, error::said};
use crate::util::sha256;

/// The libraries that this process has registered, with ONNX Runtime's names of their providers.
static REGISTERED: Mutex<Vec<(PathBuf, Vec<String>)>> = Mutex::new(Vec::new());

/// A device of a plugin, with the options that it is given.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    library: PathBuf,
    version: Option<String>,
    /// ONNX Runtime's name of the provider.
    provider: String,
    /// Which of the provider's devices it is.
    index: usize,
    /// "cpu (AMD)"
    device: String,
    /// SHA-256 of the library, once it was asked for.
    hash: OnceLock<String>,
    /// What it was asked for as.
    plugin: Plugin,
    asked: PluginOptions,
    /// By names with the provider's before them, as ort wants them.
    options: Vec<(String, String)>,
}

impl Registered {
    /// Registers the library of `plugin`, once per process, and takes the device that is asked for.
    pub fn new(
        plugin: Plugin,
        wanted: &PluginOptions,
        threads: usize,
        environment: &Environment,
        runtime: &Path,
        places: &Places,
    ) -> Result<Registered, RuntimeError> {
        let refused = |reason: String, mend: String| RuntimeError::Provider {
            provider: Provider::Plugin(plugin),
            reason,
            mend,
        };
        let facts = plugin.facts;
        let library = match &wanted.library {
            Some(library) => library.clone(),
            None => plugin.find(places, runtime).ok_or_else(|| {
                let reason = if plugin.is_known() {
                    format!("{} is neither beside the program nor in a Python", facts.library)
                } else {
                    let known = Plugin::known().map(|plugin| plugin.facts.name);
                    let known: Vec<&str> =
                        ["cpu", "cuda", "tensorrt"].into_iter().chain(known).collect();
                    format!("it is none of {}, and no library is named", known.join(", "))
                };
                refused(reason, plugin.mend())
            })?,
        };
        let broken = |why: String| {
            let reason = format!("{} {why}", library.display());
            let mend = Provider::Plugin(plugin).mend_of(&reason);
            refused(reason, mend)
        };
        elf::check(&library).map_err(|why| broken(format!("does not load: {why}")))?;
        let provider = register(plugin, &library, environment)
            .map_err(|words| broken(format!("does not load: {words}")))?;

        let devices: Vec<Device<'_>> = devices(environment, &provider).collect();
        let kinds = kinds(&devices);
        let vendors = devices.iter().map(|device| device.hardware_device().vendor());
        let described: Vec<String> = kinds
            .iter()
            .zip(vendors)
            .map(|(kind, vendor)| format!("{kind} ({})", vendor.unwrap_or("of an unknown vendor")))
            .collect();
        let index = match (&wanted.device, devices.len()) {
            (_, 0) => {
                let here = environment.devices().map(|device| device.hardware_device());
                let here =
                    here.filter_map(|device| Some((kind(device.ty()), device.vendor().ok()?)));
                let mut here: Vec<String> =
                    here.map(|(kind, vendor)| format!("{kind} ({vendor})")).collect();
                here.dedup();
                let reason = format!(
                    "{} registers no device of this machine, on which ONNX Runtime sees {}: {}",
                    library.display(),
                    here.join(", "),
                    facts.devices
                );
                return Err(refused(
                    reason,
                    "use another provider, or another machine".to_string(),
                ));
            }
            (None, 1) => 0,
            (None, _) => {
                let reason = format!("it has the devices {}", described.join(", "));
                return Err(refused(reason, format!("choose one: --ep-device {}", kinds[0])));
            }
            (Some(wanted), _) => {
                let exact = |kind: &String| kind == wanted || format!("{kind}:0") == *wanted;
                kinds.iter().position(exact).ok_or_else(|| {
                    let reason = format!("it has no device {wanted}, but {}", described.join(", "));
                    refused(reason, format!("use --ep-device {}", kinds[0]))
                })?
            }
        };
        let options = plugin.options(&wanted.options, threads);
        Ok(Registered {
            version: plugin.version(&library),
            device: described[index].clone(),
            hash: OnceLock::new(),
            plugin,
            asked: wanted.clone(),
            options: options.into_iter().map(|(key, v)| (format!("{provider}.{key}"), v)).collect(),
            library,
            provider,
            index,
        })
    }

    /// "openvino provider 1.8.1 on cpu (Intel), /path/of/its/library"
    pub fn describe(&self, provider: Provider) -> String {
        let version = self.version.as_deref().map(|version| format!(" {version}"));
        format!(
            "{provider} provider{} on {}, {}",
            version.unwrap_or_default(),
            self.device,
            self.library.display()
        )
    }

    /// What graphs that it compiles are for, in the ONNX Runtime of `version`. The number of threads is
    /// not of it: it is that of the session that loads them.
    ///
    /// # Errors
    /// Its library cannot be read, or the device is gone.
    pub fn compiled_for(
        &self,
        onnxruntime: &str,
        environment: &Environment,
    ) -> Result<CompiledFor, String> {
        let version = self.version.as_ref().map_or_else(|| self.hash(), |v| Ok(v.as_str()))?;
        let device = self.device(environment)?.hardware_device();
        let vendor = device.vendor().unwrap_or_default();
        Ok(CompiledFor {
            onnxruntime: onnxruntime.to_string(),
            provider: self.plugin.to_string(),
            version: version.to_string(),
            device: format!("{} {vendor} {:#x}", kind(device.ty()), device.id()),
            options: self.plugin.options(&self.asked.options, "{threads}").into_iter().collect(),
        })
    }

    /// SHA-256 of the library, which is read once.
    fn hash(&self) -> Result<&str, String> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let found = file::open(&self.library).and_then(|mut file| sha256(&mut file));
        let found = found.map_err(|error| format!("{}: {error}", self.library.display()))?;
        Ok(self.hash.get_or_init(|| found))
    }

    /// ONNX Runtime's name of the provider.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The flags that ask for it.
    pub fn flags(&self) -> String {
        let PluginOptions { library, options, device } = &self.asked;
        let mut flags = format!("--provider {}", self.plugin);
        let mut add = |flag: &str, value: &str| flags += &format!(" {flag} {}", quoted(value));
        library.iter().for_each(|library| add("--ep-library", &library.to_string_lossy()));
        options.iter().for_each(|(key, value)| add("--ep-option", &format!("{key}={value}")));
        device.iter().for_each(|device| add("--ep-device", device));
        flags
    }

    /// What the provider makes of the words that it has left in a graph that it compiled.
    ///
    /// # Errors
    /// In the provider's words.
    pub fn compatibility(
        &self,
        words: &str,
        environment: &Environment,
    ) -> Result<Compatibility, String> {
        let said = |error: ort::Error| said(error).to_string();
        // ort asks for a type that has the provider's name. The words come in a file of their own,
        // under a name for any provider.
        let alone = with_words_alone(AnyProvider::NAME, words);
        let info = CompatibilityInfo::<AnyProvider>::from_compiled_model_bytes(&alone);
        let Some(info) = info.map_err(said)? else { return Ok(Compatibility::Unknown) };
        let device = self.device(environment)?;
        Ok(match device.compatibility(&info).map_err(said)? {
            DeviceCompatibility::SupportedOptimal => Compatibility::Good,
            DeviceCompatibility::SupportedPreferRecompilation => Compatibility::Recompile,
            DeviceCompatibility::Unsupported => Compatibility::Unsupported,
            _ => Compatibility::Unknown,
        })
    }

    fn device<'e>(&'e self, environment: &'e Environment) -> Result<Device<'e>, String> {
        let device = devices(environment, &self.provider).nth(self.index);
        device.ok_or_else(|| "its device is gone".to_string())
    }

    /// Has sessions of `builder` run on the device.
    ///
    /// # Errors
    /// In the provider's words.
    pub fn add(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
    ) -> Result<SessionBuilder, String> {
        builder
            .with_devices([self.device(environment)?], Some(&self.options))
            .map_err(|error| error.message().to_string())
    }
}

/// Registers `library`, unless this process has it already; gives ONNX Runtime's name of the
/// provider.
fn register(plugin: Plugin, library: &Path, environment: &Environment) -> Result<String, String> {
    let names = || -> Vec<String> {
        let mut names: Vec<String> = environment
            .devices()
            .filter_map(|device| Some(device.ep().ok()?.to_string()))
            .collect();
        names.dedup();
        names
    };
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = registered.iter().find(|(path, _)| path == library);
    let new = match found {
        Some((_, new)) => new.clone(),
        None => {
            for file in plugin.facts.needs {
                for path in entries(library.parent().unwrap_or(Path::new(".")), |name| {
                    name.starts_with(file)
                }) {
                    ort::util::preload_dylib(&path)
                        .map_err(|error| crate::util::error_chain(&error))?;
                }
            }
            let before = names();
            environment
                .register_ep_library(format!("hydit-{}", registered.len()), library)
                .map_err(|error| said(error).to_string())?;
            let new: Vec<String> = names().into_iter().filter(|n| !before.contains(n)).collect();
            registered.push((library.to_owned(), new.clone()));
            new
        }
    };
    Ok(match plugin.is_known() {
        true => plugin.facts.provider.to_string(),
        false => new.into_iter().next().unwrap_or_default(),
    })
}

/// Has sessions of `builder` run on ONNX Runtime's own kernels for the CPU. Where no provider is named
/// ONNX Runtime takes any that has a processor for a device, once a plugin has registered one.
///
/// # Errors
/// In ONNX Runtime's words.
pub(super) fn on_cpu_alone(
    builder: SessionBuilder,
    environment: &Environment,
) -> Result<SessionBuilder, String> {
    const OWN: &str = "CPUExecutionProvider";
    let is_own = |device: &Device<'_>| device.ep().is_ok_and(|name| name == OWN);
    if environment.devices().all(|device| is_own(&device)) {
        return Ok(builder);
    }
    builder
        .with_devices(environment.devices().filter(is_own).take(1), None)
        .map_err(|error| error.message().to_string())
}

fn devices<'e>(
    environment: &'e Environment,
    provider: &'e str,
) -> impl Iterator<Item = Device<'e>> {
    environment.devices().filter(move |device| device.ep().is_ok_and(|name| name == provider))
}

/// What to call each device: its kind, with a number from the second of a kind on.
fn kinds(devices: &[Device<'_>]) -> Vec<String> {
    let kinds: Vec<&str> =
        devices.iter().map(|device| kind(device.hardware_device().ty())).collect();
    let number = |i: usize| kinds[..i].iter().filter(|kind| **kind == kinds[i]).count();
    (0..kinds.len())
        .map(|i| match number(i) {
            0 => kinds[i].to_string(),
            number => format!("{}:{number}", kinds[i]),
        })
        .collect()
}

fn kind(device: DeviceType) -> &'static str {
    match device {
        DeviceType::GPU => "gpu",
        DeviceType::NPU => "npu",
        _ => "cpu",
    }
}
