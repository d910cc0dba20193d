//! The file of corrections beside a calibration's: safetensors, in half precision, with the tensors
//! `<core runs>.<step>.down` `[hidden, RANK]` and `.up` `[RANK, hidden]`. The calibration has its hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydit_input::{file, safetensors as input};
use safetensors::{Dtype, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::correction::halves;
use super::{Correction, RANK, Schedule};
use crate::util::hex;

/// The largest file that is read; that of 25 steps of a model of width 1408 has some 20 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// Where the corrections of the calibration `path` lie.
pub(super) fn corrections_file(path: &Path) -> PathBuf {
    path.with_extension("corrections.safetensors")
}

/// The file of the corrections of `schedules`, if they have any.
pub(super) fn encode(schedules: &[Schedule]) -> Option<Vec<u8>> {
    let mut tensors: Vec<(String, [usize; 2], Vec<u8>)> = Vec::new();
    for schedule in schedules {
        let runs = schedule.refresh.len();
        for (step, correction) in &schedule.corrections {
            let hidden = correction.hidden();
            let name = |factor: &str| format!("{runs}.{step}.{factor}");
            tensors.push((name("down"), [hidden, RANK], halves(correction.down())));
            tensors.push((name("up"), [RANK, hidden], halves(correction.up())));
        }
    }
    let mut views = BTreeMap::new();
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F16, shape.to_vec(), bytes);
        views.insert(name.clone(), view.expect("the shape has as many numbers"));
    }
    (!views.is_empty()).then(|| serialize(views, None).expect("sizes are far below 2^64"))
}

/// The hash of the file of `bytes`, as a calibration has it.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Gives `schedules` their corrections from `path`, a file with the hash `sha256`.
///
/// # Errors
/// In a line that names it: what is wrong with the file, and what to do.
pub(super) fn read(path: &Path, sha256: &str, schedules: &mut [Schedule]) -> Result<(), String> {
    let refuse = |message: String| {
        format!("{}: {message}: make both anew with hydit-serve calibrate", path.display())
    };
    let bytes = file::read(path, MAX_BYTES).map_err(|error| refuse(error.to_string()))?;
    if hash(&bytes) != sha256 {
        return Err(refuse("not the file that the calibration was made with".to_string()));
    }
    let header = input::header(&bytes).map_err(refuse)?;
    for (name, down) in &header.tensors {
        let Some((of, "down")) = name.rsplit_once('.') else { continue };
        let schedule = of.split_once('.').and_then(|(runs, step)| {
            let runs: usize = runs.parse().ok()?;
            let schedule = schedules.iter_mut().find(|schedule| schedule.refresh.len() == runs)?;
            Some((schedule, step.parse().ok()?))
        });
        let floats = |stored: &input::Stored| {
            let half = stored.dtype == Dtype::F16;
            half.then(|| input::floats(&bytes[stored.bytes.clone()], stored.dtype))
        };
        let up = header.tensors.get(&format!("{of}.up"));
        let correction = floats(down)
            .zip(up.and_then(floats))
            .and_then(|(down, up)| Correction::new(&down, &up));
        let ((schedule, step), correction) =
            schedule.zip(correction).ok_or_else(|| refuse(format!("{of}: not a correction")))?;
        schedule.corrections.insert(step, correction);
    }
    Ok(())
}
