//! An image that a client waits for: fields in, a task under way, files out. What the APIs that
//! answer with images have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use hydit::CheckedRequest;
use hydit::artifacts::Artifacts;
use hydit::image::Image;
use uuid::Uuid;

use super::error::ApiError;
use super::guard::Client;
use super::image::ImageFields;
use crate::server::app::App;
use crate::server::figures::Figures;
use crate::server::log;
use crate::server::output::Output;
use crate::server::scheduler::{Failure, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::server::spawn::blocking;

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
}

/// A task under way. Dropping it cancels the task.
pub struct Drawing {
    /// What was asked for.
    pub spec: Arc<ImageSpec>,
    handle: TaskHandle,
}

/// The images that a client gets.
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
        let (model, artifacts) = app.scheduler.model(fields.model.as_deref())?;
        let (model, artifacts) = (model.to_string(), Arc::clone(artifacts));
        let app = Arc::clone(app);
        blocking(move || {
            let output = fields.output(&app.settings)?;
            let deadline = fields.deadline(&app.settings)?;
            let request = fields.request(&artifacts, &app.settings)?;
            Ok(ImageSpec { model, artifacts, request, output, deadline })
        })
        .await
    }
}

impl Drawing {
    /// Submits what `fields` ask for, with this number of full-size images on the way.
    ///
    /// # Errors
    /// As [`ImageSpec::check`]; when the scheduler does not accept the task.
    pub async fn begin(
        app: &Arc<App>,
        client: &Client,
        fields: ImageFields,
        partial_images: usize,
    ) -> Result<Drawing, ApiError> {
        let spec = ImageSpec::check(app, fields).await?;
        let deadline = spec.deadline.unwrap_or(app.settings.deadline);
        let id = Uuid::new_v4().simple().to_string();
        tracing::Span::current().record("order", &*id); // as the scheduler's log lines call it
        let handle = app.scheduler.submit(Task {
            id,
            model: spec.model.clone(),
            request: spec.request.clone(),
            client: Arc::clone(&client.0),
            deadline: Some(Instant::now() + deadline),
            preview_every: None,
            partial_images,
            no_batching: false,
        })?;
        Ok(Drawing { spec: Arc::new(spec), handle })
    }

    /// Waits for the next event; the last is [`TaskEvent::Done`].
    ///
    /// # Errors
    /// Why there will be no image.
    pub async fn next(&mut self) -> Result<TaskEvent, ApiError> {
        match self.handle.next().await {
            Some(TaskEvent::Failed(failure)) => Err(failure.into()),
            Some(event) => Ok(event),
            None => Err(Failure::Worker("its thread ended".to_string()).into()),
        }
    }

    /// Waits for the images.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn images(mut self) -> Result<EncodedImages, ApiError> {
        loop {
            if let TaskEvent::Done(output) = self.next().await? {
                return self.encode(*output).await;
            }
        }
    }

    /// Encodes the images of [`TaskEvent::Done`].
    ///
    /// # Errors
    /// When one cannot be encoded.
    pub async fn encode(&self, output: TaskOutput) -> Result<EncodedImages, ApiError> {
        let spec = Arc::clone(&self.spec);
        blocking(move || {
            let ImageSpec { model, artifacts, request, .. } = &*spec;
            let files = spec.output.encode(&output.images, artifacts, request);
            let figures = Figures::new(model, request, &output);
            Ok(EncodedImages { files: files.map_err(not_encoded)?, figures })
        })
        .await
    }

    /// Encodes the image of [`TaskEvent::Partial`].
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub async fn encode_partial(&self, image: Image) -> Result<Vec<u8>, ApiError> {
        let output = self.spec.output;
        blocking(move || output.encode_partial(&image).map_err(not_encoded)).await
    }
}

fn not_encoded(error: hydit::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding_failed", error.to_string())
}
