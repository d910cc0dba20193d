//! Jobs that an earlier process has left.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hydit::artifacts::Artifacts;
use hydit::{CheckedRequest, ImagePrompt, Request};
use tracing::{error, info, warn};

use super::error::JobsError;
use super::record::JobRecord;
use super::shared::Jobs;
use crate::server::control::ControlField;
use crate::server::init_image::Files;
use crate::server::told::Told;

/// A job that was begun this often without an end may be what ends the process: the others go
/// first.
const SUSPECT: u32 = 3;
/// Time between two sweeps of the store.
const SWEEP: Duration = Duration::from_secs(60);

impl Jobs {
    /// Submits the jobs that earlier processes have left, in their order, and keeps the store
    /// within its bounds from now on. To be called once, in a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(self: &Arc<Self>) -> Result<(), JobsError> {
        self.sweep_now();
        let pending = in_turn(self.store.pending()?);
        let total = pending.len();
        for record in pending {
            match self.check(&record) {
                Ok(request) => self.begin(record, request),
                Err((code, message)) => {
                    warn!(job = %record.id, code, message, "cannot be drawn any more");
                    self.refuse(record, code, message);
                }
            }
        }
        if total > 0 {
            info!(jobs = total, "left by an earlier process");
        }
        tokio::spawn(keep_swept(Arc::downgrade(self)));
        Ok(())
    }

    /// The request of a job that was accepted by an earlier process, or the code and the message
    /// of why this process cannot draw it.
    fn check(&self, record: &JobRecord) -> Result<CheckedRequest, (&'static str, String)> {
        if let Some(unreadable) = &record.unreadable {
            return Err((unreadable.code, unreadable.message.clone()));
        }
        let spec = &record.spec;
        let (name, artifacts) = self
            .scheduler
            .model(Some(&spec.model))
            .map_err(|refusal| ("model_gone", refusal.to_string()))?;
        if artifacts.hash != spec.manifest_sha256 {
            let message = format!(
                "the model {name:?} was exported anew since the job was accepted: ask again"
            );
            return Err(("model_changed", message));
        }
        let mut request = spec.request.clone();
        let has_images = request.init_image.is_some() || request.image_prompt.is_some();
        if has_images || !request.controls.is_empty() {
            self.read_images(record, artifacts, &mut request)?;
        }
        request.check(artifacts).map_err(|error| {
            let Told { code, message } = Told::of(&error, &record.id.to_string());
            (code, message)
        })
    }

    /// Gives `request`, which is that of the job `record` and knows its images by their hashes, the
    /// images.
    fn read_images(
        &self,
        record: &JobRecord,
        artifacts: &Artifacts,
        request: &mut Request,
    ) -> Result<(), (&'static str, String)> {
        let gone = |why: &dyn Display| {
            error!(job = %record.id, %why, "an image of a job cannot be read");
            let message = "an image that it was sent with cannot be read any more: send it again";
            ("image_gone", message.to_string())
        };
        let absent = || gone(&"it is not there");
        let another = || gone(&"it is another");
        let size = (request.width, request.height);
        let stored = self.store.inputs(record.id).map_err(|error| gone(&error))?;
        let mut stored = stored.into_iter();
        if let Some(known) = &mut request.init_image {
            let image = Some(stored.next().ok_or_else(absent)?);
            let mask = match known.mask_sha256 {
                Some(_) => Some(stored.next().ok_or_else(absent)?),
                None => None,
            };
            let files = Files { image, mask, ..Files::default() };
            let images = files.decode().map_err(|error| gone(&error))?.init;
            let read = images.ok_or_else(absent)?.fit(Some(known.strength), size);
            if read.sha256 != known.sha256 || read.mask_sha256 != known.mask_sha256 {
                return Err(another());
            }
            *known = read;
        }
        for known in &mut request.controls {
            let file = stored.next().ok_or_else(absent)?;
            let read = ControlField::of(known).fit(&file, size).map_err(|error| gone(&error))?;
            if read.sha256 != known.sha256 {
                return Err(another());
            }
            *known = read;
        }
        if let Some(known) = &mut request.image_prompt {
            let image_prompt = Some(stored.next().ok_or_else(absent)?);
            let files = Files { image_prompt, ..Files::default() };
            let image = files.decode().map_err(|error| gone(&error))?.prompt;
            let image = image.ok_or_else(absent)?;
            let read = ImagePrompt::new(&artifacts.manifest, &image, known.weight);
            let read = read.map_err(|error| gone(&error))?;
            if read.sha256 != known.sha256 {
                return Err(another());
            }
            *known = read;
        }
        Ok(())
    }
}

/// Sorts jobs by their numbers, those last that may be what ends the process.
fn in_turn(mut pending: Vec<JobRecord>) -> Vec<JobRecord> {
    pending.sort_by_key(|record| (record.starts >= SUSPECT, record.number));
    pending
}

async fn keep_swept(jobs: Weak<Jobs>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match jobs.upgrade() {
            Some(jobs) => jobs.sweep().await,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::record;
    use super::*;

    #[test]
    fn a_job_that_may_end_the_process_lets_the_others_go_first() {
        let starts = [0, SUSPECT, SUSPECT - 1, SUSPECT + 4, 0];
        let job = |(number, starts)| JobRecord { number, starts, ..record("ann") };
        let jobs = in_turn((0..).zip(starts).map(job).collect());
        let numbers: Vec<u64> = jobs.iter().map(|job| job.number).collect();
        assert_eq!(numbers, [0, 2, 4, 1, 3]);
    }
}
