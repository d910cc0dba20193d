//! An image that a client waits for: fields in, a task under way, files out. What the APIs that
//! answer with images have in common.

use std::sync::Arc;
use std::time::Duration;

use hydit::artifacts::Artifacts;
use hydit::image::Image;
use hydit::{CheckedRequest, Request};
use uuid::Uuid;

use super::error::ApiError;
use super::guard::Client;
use super::image::ImageFields;
use crate::server::app::App;
use crate::server::figures::Figures;
use crate::server::init_image::Files;
use crate::server::log;
use crate::server::output::Output;
use crate::server::scheduler::{Failure, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::server::spawn::blocking;
use crate::server::told::Told;

/// What a client asks for, checked.
pub struct ImageSpec {
    /// Name of the model.
    pub model: String,
    /// The model.
    pub artifacts: Arc<Artifacts>,
    /// What to draw.
    pub request: CheckedRequest,
    /// How the images are sent.
    pub output: Output,
    /// How long the answer is wanted, if the client says.
    pub deadline: Option<Duration>,
    /// What came with the request.
    pub files: Files,
}

/// How an answer carries the files of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Not at all.
    No,
    /// As they are.
    Bytes,
    /// In JSON.
    Base64,
}

/// A task under way. Dropping it cancels the task.
pub struct Drawing {
    spec: Arc<ImageSpec>,
    id: String,
    handle: TaskHandle,
}

/// The images that a client gets.
#[derive(Debug)]
pub struct EncodedImages {
    /// Their files.
    pub files: Vec<Vec<u8>>,
    /// How they were made.
    pub figures: Figures,
}

impl ImageSpec {
    /// Checks `fields`, down to the plan.
    ///
    /// # Errors
    /// 404 for the model, 400 for any other field.
    pub async fn check(app: &Arc<App>, fields: ImageFields) -> Result<ImageSpec, ApiError> {
        if let Some(prompt) = fields.request.get("prompt").and_then(|prompt| prompt.as_str()) {
            log::prompt(prompt, app.settings.log_prompts);
        }
        let named = fields.model.as_deref().filter(|name| !name.is_empty());
        let (model, artifacts) = app.scheduler.model(named)?;
        let (model, artifacts) = (model.to_string(), Arc::clone(artifacts));
        let app = Arc::clone(app);
        blocking(move || {
            let output = fields.output(&app.settings)?;
            let deadline = fields.deadline(&app.settings)?;
            let request = fields.request(&artifacts, &app.settings)?;
            let files = fields.files()?;
            Ok(ImageSpec { model, artifacts, request, output, deadline, files })
        })
        .await
    }
}

impl Drawing {
    /// Submits what `fields` ask for, with this number of full-size images on the way.
    ///
    /// # Errors
    /// As [`ImageSpec::check`]; 400 when the answer, which carries the images so, might be larger
    /// than allowed; when the scheduler does not accept the task.
    pub async fn begin(
        app: &Arc<App>,
        client: &Client,
        fields: ImageFields,
        partial_images: usize,
        carried: Carried,
    ) -> Result<Drawing, ApiError> {
        let spec = ImageSpec { files: Files::default(), ..ImageSpec::check(app, fields).await? };
        check_answer(&spec.request, carried, app.settings.limits.max_answer)?;
        let deadline = spec.deadline.unwrap_or(app.settings.deadline);
        let id = Uuid::new_v4().simple().to_string();
        tracing::Span::current().record("order", &*id); // as the scheduler's log lines call it
        let handle = app.scheduler.submit(Task {
            id: id.clone(),
            model: spec.model.clone(),
            request: spec.request.clone(),
            client: Arc::clone(&client.0),
            deadline: Some(app.scheduler.clock().now().instant + deadline),
            preview_every: None,
            partial_images,
            no_batching: false,
        })?;
        Ok(Drawing { spec: Arc::new(spec), id, handle })
    }

    /// Id of the task.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is drawn.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// Waits for the next event; the last is [`TaskEvent::Done`].
    ///
    /// # Errors
    /// Why there will be no image.
    pub async fn next(&mut self) -> Result<TaskEvent, ApiError> {
        match self.handle.next().await {
            Some(TaskEvent::Failed(failure)) => Err(failure.into()),
            Some(event) => Ok(event),
            None => Err(Failure::Worker("its thread ended").into()),
        }
    }

    /// Waits for the images, and gives what `write` makes of them.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn answer<R: Send + 'static>(
        mut self,
        write: impl FnOnce(&ImageSpec, EncodedImages) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        loop {
            if let TaskEvent::Done(output) = self.next().await? {
                return self.encode(*output, write).await;
            }
        }
    }

    /// What `write` makes of the images of [`TaskEvent::Done`]. It runs where it holds up nobody.
    ///
    /// # Errors
    /// When an image cannot be encoded.
    pub async fn encode<R: Send + 'static>(
        &self,
        output: TaskOutput,
        write: impl FnOnce(&ImageSpec, EncodedImages) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let (spec, id) = (Arc::clone(&self.spec), self.id.clone());
        blocking(move || {
            let ImageSpec { model, artifacts, request, .. } = &*spec;
            let files = spec.output.encode(&output.images, artifacts, request, &output.truncated);
            let files = files.map_err(|error| Failure::Draw(Told::of(&error, &id)))?;
            let figures = Figures::new(model, request, &output);
            drop(output); // the answer is about to take as much memory again
            Ok(write(&spec, EncodedImages { files, figures }))
        })
        .await
    }

    /// As [`Drawing::encode`], of the image of [`TaskEvent::Partial`].
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub async fn encode_partial<R: Send + 'static>(
        &self,
        image: Image,
        write: impl FnOnce(&ImageSpec, &[u8]) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        let (spec, id) = (Arc::clone(&self.spec), self.id.clone());
        blocking(move || {
            let file = spec.output.encode_partial(&image);
            let file = file.map_err(|error| Failure::Draw(Told::of(&error, &id)))?;
            Ok(write(&spec, &file))
        })
        .await
    }
}

/// Refuses a request whose answer might have more than `most` bytes, before anything is drawn.
fn check_answer(request: &Request, carried: Carried, most: u64) -> Result<(), ApiError> {
    let file = most_bytes(request.width, request.height);
    let image = match carried {
        Carried::No => 0,
        Carried::Bytes => file,
        Carried::Base64 => file.div_ceil(3) * 4,
    };
    let all = image * request.num_images as u64;
    if all <= most {
        return Ok(());
    }
    let field = if image <= most { "n" } else { "size" };
    let message = format!(
        "{field}: an answer of {} images of {}x{} may have {all} bytes, and at most {most} are \
         allowed here; ask for less, or send a job",
        request.num_images, request.width, request.height
    );
    Err(ApiError::field(field, message))
}

/// Maximum bytes of the file of an image, whatever it shows and in any format: noise as a JPEG of
/// the best quality takes more than the pixels themselves. Includes the parameters in a PNG.
fn most_bytes(width: usize, height: usize) -> u64 {
    const PARAMETERS: u64 = 128 << 10;
    (width * height * 3) as u64 * 3 / 2 + PARAMETERS
}

#[cfg(test)]
mod tests {
    use hydit::image::{Format, encode};
    use hydit::util::hex;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn no_file_is_larger_than_reckoned() {
        // Noise, which no format makes smaller.
        let block = |i: usize| hex(&Sha256::digest(i.to_le_bytes())).into_bytes();
        let digits: Vec<u8> = (0..).flat_map(block).take(2 * 3 * 256 * 256).collect();
        let bytes = digits.chunks(2).map(|two| {
            let text = str::from_utf8(two).expect("hexadecimal digits");
            u8::from_str_radix(text, 16).expect("hexadecimal digits")
        });
        let rgb: Vec<u8> = bytes.collect();
        let longest = ["hydit", "parameters"].map(|key| (key.to_string(), "猫".repeat(2 * 4096)));
        for (width, height) in [(256, 256), (16, 4096), (4096, 16), (16, 16)] {
            let image = Image { width, height, rgb: rgb[..3 * width * height].to_vec() };
            for (format, texts) in
                [(Format::Png, &longest[..]), (Format::Jpeg, &[]), (Format::Webp, &[])]
            {
                let file = encode(&image, format, 100, texts).expect("it is encoded");
                let most = most_bytes(width, height);
                assert!(file.len() as u64 <= most, "{format} {width}x{height}: {}", file.len());
            }
        }
    }
}
