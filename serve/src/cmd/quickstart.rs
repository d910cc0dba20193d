//! `hydit-serve quickstart`: from the programs alone to a picture, and what to do next.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hydit::cache::{CachePolicy, refreshes};
use hydit::files::write_new;
use hydit::image::{Format, encode};
use hydit::request::spacing_of;
use hydit::runtime::{Backend, RuntimeOptions};
use hydit::sampler::SamplerKind;
use hydit::{Pipeline, Request};
use hydit_graphs::variant::CacheDefaults;
use hydit_input::quoted;
use hydit_terminal::{note, say};

use super::progress::Progress;
use super::prompts;
use crate::engine;

/// The small model, below the folder that a package is installed to, and in the repository.
const INSTALLED: &str = "share/hydit/models/emoji";
const MODEL: &str = "models/emoji";
/// Most pictures of one folder: beyond them it is asked for another.
const MOST: usize = 1000;
/// Steps, and how many of them share a run of the deep core.
const STEPS: usize = 25;
const GAP: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

/// Finds an engine, exports the small model unless that is done already, and draws with the cache.
/// Nothing is overwritten.
#[derive(Args)]
pub struct Quickstart {
    /// Folder for the export and the pictures; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "hydit-quickstart")]
    folder: PathBuf,
    /// Checkpoint to export [default: the small model beside the programs].
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// What to draw, Chinese or English.
    #[arg(long, default_value = "蓝色背景上的猫", allow_hyphen_values = true)]
    prompt: String,
}

impl Quickstart {
    pub fn run(self) -> Result<()> {
        let backend = engine::open(&RuntimeOptions::default())?;
        note(format_args!("engine    {}", backend.describe()));
        let bring = backend.name().starts_with("tract").then(engine::bring_runtime);
        if let Some(bring) = &bring {
            note(format_args!("          ONNX Runtime would be several times as fast: {bring}"));
        }
        let model = self.export()?;
        let start = Instant::now();
        let (picture, core_runs) = self.draw(&model, backend)?;
        note(format_args!(
            "picture   {}, in {:.1} s; the deep core ran at {core_runs} of {STEPS} steps\n",
            picture.display(),
            start.elapsed().as_secs_f64()
        ));
        say(next(&model, &picture, bring.as_deref()))?;
        Ok(())
    }

    /// The folder of the export, which is made unless it is there.
    fn export(&self) -> Result<PathBuf> {
        let checkpoint = match &self.checkpoint {
            Some(checkpoint) => checkpoint.clone(),
            None => small_model()?,
        };
        let name = checkpoint.file_name().with_context(|| {
            format!("--checkpoint: {} has no name of its own; name a folder", checkpoint.display())
        })?;
        let out = self.folder.join(name);
        if out.join("manifest.yaml").exists() {
            note(format_args!("model     {}, as it is there already", out.display()));
            return Ok(out);
        }
        fs::create_dir_all(&self.folder).with_context(|| {
            format!("--folder: cannot make {}; name one you may write to", self.folder.display())
        })?;
        note(format_args!("model     {} from {}", out.display(), checkpoint.display()));
        let program = exporter();
        let status = Command::new(&program)
            .arg("--checkpoint")
            .arg(&checkpoint)
            .arg("--out")
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) => ensure!(
                status.success(),
                "{} could not export {}; its message is above",
                program.display(),
                checkpoint.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "hydit-export is neither beside hydit-serve nor on PATH: install it too, with cargo \
                 install --locked --path exporter"
            ),
            Err(error) => return Err(error).context(format!("cannot start {}", program.display())),
        }
        Ok(out)
    }

    /// Draws with the export `model`. Gives the file of the picture, and at how many steps the core
    /// ran.
    fn draw(&self, model: &Path, backend: Backend) -> Result<(PathBuf, usize)> {
        let mut pipeline = Pipeline::load(model, backend)?;
        let manifest = pipeline.manifest();
        let CacheDefaults { start, close, .. } = manifest.variant.cache;
        let sampler = SamplerKind::Dpmms;
        let request = Request {
            sampler,
            spacing: spacing_of(manifest, sampler),
            steps: STEPS,
            cache_policy: CachePolicy::interval(GAP, start, close),
            ..Request::new(manifest, &self.prompt)?
        };
        let request = request.check(pipeline.artifacts())?;
        let mut progress = Progress::new("picture");
        let made = pipeline.generate(&request, &mut |step| progress.step(step))?;
        progress.finish();
        prompts::tell_cut(&made.truncated);
        let texts = request.parameters(pipeline.artifacts(), 0, &made.truncated).to_texts();
        let bytes = encode(&made.images[0], Format::Png, 0, &texts)?;
        Ok((self.write(&bytes)?, refreshes(&made.plan)))
    }

    /// Writes a picture under the first name that is free.
    fn write(&self, bytes: &[u8]) -> Result<PathBuf> {
        for number in 1..=MOST {
            let name =
                if number == 1 { "picture.png".into() } else { format!("picture-{number}.png") };
            let path = self.folder.join(name);
            match write_new(&path, bytes) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    return Err(error).context(format!("cannot write {}", path.display()));
                }
                Ok(()) => return Ok(path),
            }
        }
        bail!("{} has {MOST} pictures; name another --folder", self.folder.display())
    }
}

/// The small model: where a package has it, else that of the repository which the program was built
/// in or which is the current folder.
fn small_model() -> Result<PathBuf> {
    let program = env::current_exe().and_then(|program| program.canonicalize())?;
    let above = |levels: usize| program.ancestors().nth(levels).unwrap_or(Path::new("/"));
    // bin/hydit-serve of a package; target/release/hydit-serve of a repository.
    let places = [above(2).join(INSTALLED), above(3).join(MODEL), PathBuf::from(MODEL)];
    let found = places.iter().find(|place| place.join("model_index.json").is_file());
    found.cloned().with_context(|| {
        let places = places.each_ref().map(|place| format!("\n  {}", place.display())).concat();
        format!(
            "the small model is in none of these places:{places}\n  name a checkpoint with \
             --checkpoint, such as models/emoji of hydit's repository"
        )
    })
}

/// The program `hydit-export` beside this one, or whichever is on `PATH`.
fn exporter() -> PathBuf {
    const NAME: &str = "hydit-export";
    let beside = env::current_exe().map(|program| program.with_file_name(NAME));
    beside.ok().filter(|program| program.is_file()).unwrap_or(NAME.into())
}

/// What to do next.
fn next(model: &Path, picture: &Path, bring: Option<&str>) -> String {
    let model = quoted(&model.to_string_lossy());
    let picture = quoted(&picture.to_string_lossy());
    let mut commands = vec![
        ("a page, at http://127.0.0.1:8080", format!("hydit-serve serve --model {model}")),
        ("a dog", format!("hydit-serve generate --model {model} --prompt 狗 -o dog.png")),
        (
            "another picture like it",
            format!("hydit-serve generate --model {model} --from {picture} --seed -1 -o other.png"),
        ),
        ("what your own checkpoint needs", "hydit-export check DIR".to_string()),
    ];
    commands.extend(bring.map(|bring| ("ONNX Runtime", bring.to_string())));
    let lines = commands.iter().map(|(what, command)| format!("\n  # {what}\n  {command}"));
    format!("{picture}\n\nNext:{}", lines.collect::<String>())
}
