//! What is kept between an interrupted calibration and the next.

use std::path::Path;

use hydit_input::file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Settings;
use super::record::Record;
use crate::cache::Schedule;
use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::pipeline::Pipeline;
use crate::util::hex;

/// The largest file that is read; that of 1000 steps has some 20 MiB, and corrections take twice what
/// they do in a file of their own.
const MAX_BYTES: u64 = 512 << 20;

/// What is done of a calibration.
#[derive(Serialize, Deserialize)]
pub(super) struct Partial {
    /// Of what.
    key: String,
    pub record: Record,
    /// How many prompts were learned from.
    pub recorded: usize,
    /// How many of the numbers of core runs.
    pub tried: usize,
    pub schedules: Vec<Schedule>,
}

impl Partial {
    /// What `path` holds of the same calibration, or nothing done yet: also if the file is of
    /// another calibration, was changed, or is something else altogether.
    pub fn open(path: &Path, pipeline: &Pipeline, settings: &Settings) -> Partial {
        let Settings { request, learn, check, runs, tries, corrections } = settings;
        let hash = &pipeline.artifacts().hash;
        let engine = pipeline.backend().describe();
        let version = env!("CARGO_PKG_VERSION");
        // As in a PNG: of images the hashes.
        let asked = serde_json::to_string(request).expect("strings and numbers are valid JSON");
        let key = format!(
            "{version} {hash} {engine} {asked} {learn:?} {check:?} {runs:?} {tries} \
             {corrections}"
        );
        let found = file::read_text(path, MAX_BYTES).ok();
        let found = found.as_deref().and_then(unsealed);
        found.filter(|found| found.key == key && found.fits(settings)).unwrap_or_else(|| Partial {
            key,
            record: Record::new(request.steps),
            recorded: 0,
            tried: 0,
            schedules: Vec::new(),
        })
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let io = |source| Error::Write { path: path.to_path_buf(), source };
        let json = serde_json::to_string(self).map_err(|error| io(error.into()))?;
        write_whole(path, sealed(&json).as_bytes()).map_err(io)
    }

    /// Whether a calibration by `settings` can have come so far.
    fn fits(&self, settings: &Settings) -> bool {
        let Settings { request, learn, runs, .. } = settings;
        let Partial { record, recorded, tried, schedules, .. } = self;
        let Some(done) = runs.get(..*tried) else { return false };
        let good = |schedule: &Schedule| {
            schedule.check(request.steps).is_ok()
                && done.contains(&schedule.refresh.len())
                && schedule.measured.is_some()
        };
        *recorded <= learn.len()
            && (*tried == 0 || *recorded == learn.len())
            && record.fits(request.steps)
            && schedules.iter().all(good)
    }
}

/// A line with the hash of `json`, and `json`.
fn sealed(json: &str) -> String {
    format!("{}\n{json}", hex(&Sha256::digest(json)))
}

fn unsealed(text: &str) -> Option<Partial> {
    let (hash, json) = text.split_once('\n')?;
    let whole = hash == hex(&Sha256::digest(json));
    if whole { serde_json::from_str(json).ok() } else { None }
}
