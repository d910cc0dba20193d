//! Opens engines for the program, a plugin only after a process of its own has survived it.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use hydit::artifacts::Artifacts;
use hydit::engines::compile;
use hydit::runtime::{
    Backend, Compatibility, PluginOptions, Provider, RuntimeError, RuntimeOptions,
};
use hydit_input::quoted;

/// The hidden subcommand that opens an engine and ends.
pub const LOOK: &str = "look";
/// How long a plugin may take to be registered.
const PATIENCE: Duration = Duration::from_secs(120);

/// How plugin providers are used.
#[derive(Args, Clone, Debug, Default)]
pub struct PluginFlags {
    /// Library of the plugin that --provider names, if it is neither beside the program nor where pip
    /// puts it.
    #[arg(long, value_name = "PATH")]
    ep_library: Option<PathBuf>,
    /// Option of the plugin, by its own name; again for each.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    ep_option: Vec<(String, String)>,
    /// Device of the plugin, as hydit-serve doctor lists them: cpu, gpu, npu, or gpu:1 for the second;
    /// its only one if not given.
    #[arg(long, value_name = "DEVICE")]
    ep_device: Option<String>,
}

impl PluginFlags {
    /// The flags as options of the runtime.
    pub fn options(&self) -> PluginOptions {
        PluginOptions {
            library: self.ep_library.clone(),
            options: self.ep_option.clone(),
            device: self.ep_device.clone(),
        }
    }

    /// The flags as options for `provider`, where those of `asked` are named: none for one that is no
    /// plugin, if it only stands beside a plugin that they are meant for.
    pub fn options_for(&self, provider: Provider, asked: &[Provider]) -> PluginOptions {
        let is_plugin = |provider: &Provider| matches!(provider, Provider::Plugin(_));
        if asked.iter().any(is_plugin) && !is_plugin(&provider) {
            return PluginOptions::default();
        }
        self.options()
    }
}

/// `text` as the name and the value of an option.
///
/// # Errors
/// Without a name.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("expected KEY=VALUE".to_string()),
    }
}

/// Where ONNX Runtime computes, as `--provider` names it.
///
/// # Errors
/// Says what was expected.
pub fn provider(text: &str) -> Result<Provider, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// The flags that ask for the provider of `options` and all that goes with it.
pub fn provider_flags(options: &RuntimeOptions) -> Vec<OsString> {
    let joined = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut joined = OsString::from(format!("{flag}="));
        joined.push(value.as_ref());
        joined
    };
    let PluginOptions { library, options: own, device } = &options.plugin;
    let mut flags = vec![joined("--provider", &options.provider.to_string())];
    flags.extend(library.iter().map(|library| joined("--ep-library", library)));
    flags.extend(own.iter().map(|(key, v)| joined("--ep-option", &format!("{key}={v}"))));
    flags.extend(device.iter().map(|device| joined("--ep-device", device)));
    flags
}

/// Opens an engine.
///
/// # Errors
/// As [`Backend::open`]; also where a plugin ends the process that loads it.
pub fn open(options: &RuntimeOptions) -> Result<Backend, RuntimeError> {
    survive(options)?;
    Backend::open(options)
}

/// The same `artifacts`, with engines that were compiled again if their provider would rather have
/// them so, of which a line is told.
///
/// # Errors
/// They are of no use on `backend`, or cannot be compiled.
pub fn renewed(
    artifacts: Artifacts,
    backend: &Backend,
    tell: impl FnOnce(&str),
) -> hydit::Result<Artifacts> {
    let Some(engines) = &artifacts.engines else { return Ok(artifacts) };
    if engines.check(&artifacts, backend)? != Compatibility::Recompile {
        return Ok(artifacts);
    }
    let folder = engines.folder().to_owned();
    tell(&format!(
        "engines   those in {} were compiled elsewhere: the {} provider runs them, and better when they \
         are compiled here, which is done now",
        folder.display(),
        backend.provider()
    ));
    compile(&artifacts, backend, None, &folder, |_| {})?;
    artifacts.with_engines(Some(&folder))
}

/// The command that brings ONNX Runtime to where this program looks for it.
pub fn bring_runtime() -> String {
    const PACKAGE: &str = "onnxruntime==1.31.1";
    let program = std::env::current_exe().and_then(|program| program.canonicalize());
    // The Python that pip has installed the program into, if it is one that pip may install into.
    let own = program.ok().and_then(|program| Some(program.ancestors().nth(2)?.to_owned()));
    let pip =
        own.filter(|prefix| prefix.join("pyvenv.cfg").exists()).map(|own| own.join("bin/pip"));
    match pip.filter(|pip| pip.exists()) {
        Some(pip) => format!("{} install {PACKAGE}", quoted(&pip.to_string_lossy())),
        None if Path::new("scripts/setup-ort").exists() => "scripts/setup-ort".to_string(),
        None => format!("python3 -m venv .venv && .venv/bin/pip install {PACKAGE}"),
    }
}

/// Has a process of its own load the plugin of `options`, once for each.
fn survive(options: &RuntimeOptions) -> Result<(), RuntimeError> {
    static SURVIVED: Mutex<Vec<Vec<OsString>>> = Mutex::new(Vec::new());
    if !matches!(options.provider, Provider::Plugin(_)) {
        return Ok(());
    }
    let flags = provider_flags(options);
    let mut survived = SURVIVED.lock().unwrap_or_else(PoisonError::into_inner);
    if survived.contains(&flags) {
        return Ok(());
    }
    let refused = |reason: String, mend: &str| RuntimeError::Provider {
        provider: options.provider,
        reason,
        mend: mend.to_string(),
    };
    let failed = |error: std::io::Error| {
        refused(format!("no process could be started to look at it: {error}"), "try again")
    };
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg(LOOK)
        .args(&flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut pipe = child.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What does not fit is read all the same, so that the child does not wait.
        let _ = pipe.by_ref().take(1 << 16).read_to_end(&mut said);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&said).into_owned()
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            let reason = format!("its library did not load in {} s", PATIENCE.as_secs());
            return Err(refused(reason, "use another provider"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = reader.join().unwrap_or_default();
    match status.signal() {
        None => survived.push(flags),
        Some(signal) => return Err(fatal(signal, &said, refused)),
    }
    Ok(())
}

/// Why a library ended the process that loaded it with `signal`, after it had `said` something.
fn fatal(signal: i32, said: &str, refused: impl Fn(String, &str) -> RuntimeError) -> RuntimeError {
    // ONNX Runtime's words where a library asks for an interface that it does not have.
    let newer = said.lines().find(|line| line.contains("requested API version"));
    let wanted = newer.and_then(|line| {
        line.split(['[', ']']).nth(1).and_then(|number| number.trim().parse::<u32>().ok())
    });
    match wanted {
        Some(wanted) => refused(
            format!("its library was built for ONNX Runtime 1.{wanted}, and that here is older"),
            "install that ONNX Runtime or an older plugin: hydit-serve doctor shows what is here",
        ),
        None => refused(
            format!("its library ends the program that loads it (signal {signal})"),
            "install it again, or another version of it; or leave out --provider",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pairs() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_string(), "b=c".to_string())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }
}
