//! A picture that a client waits for: fields in, an order under way, encoded pictures out. What every
//! API that answers when the picture is done has in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::picture::name;
use super::{ApiError, App, Client, Output, PictureFields};
use crate::server::log;
use crate::server::scheduler::{Failure, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::server::spawn::blocking;
use hydit::artifacts::Artifacts;
use hydit::cache::refreshes;
use hydit::image::Image;
use hydit::request::Request;
use hydit::sampler::SamplerKind;

/// What a client asks for, checked.
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// The model.
    pub artifacts: Arc<Artifacts>,
    /// What to draw.
    pub request: Request,
    /// How to send it.
    pub output: Output,
    /// How long it is wanted.
    pub deadline: Option<Duration>,
}

/// An order under way. Dropping it cancels the order.
pub struct Drawing {
    /// What was asked for.
    pub asked: Arc<Asked>,
    handle: TaskHandle,
}

/// What came of it.
pub struct Pictures {
    /// Each in the format asked for.
    pub encoded: Vec<Vec<u8>>,
    /// How they were made.
    pub figures: Figures,
}

/// How pictures were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Figures {
    /// The model's name.
    pub model: String,
    /// The seed of each picture.
    pub seeds: Vec<u64>,
    /// `WIDTHxHEIGHT` in pixels.
    pub size: String,
    /// Denoising steps.
    pub steps: usize,
    /// At how many of them the deep core ran.
    pub core_runs: usize,
    /// The sampler.
    #[schema(value_type = String)]
    pub sampler: SamplerKind,
    /// Guidance scale.
    pub guidance: f32,
    /// The cache policy.
    pub cache: String,
    /// Which of `prompt` and `negative_prompt` were longer than the text encoders read.
    pub truncated: Vec<String>,
    /// From the request to its first step.
    pub queued_seconds: f64,
    /// From there to the pictures.
    pub drawing_seconds: f64,
}

impl Asked {
    /// Checks `fields`, down to the plan.
    ///
    /// # Errors
    /// 404 for the model, 400 for any other field.
    pub async fn check(app: &Arc<App>, fields: PictureFields) -> Result<Asked, ApiError> {
        log::prompt(&fields.prompt, app.settings.log_prompts);
        let (model, artifacts) = app.scheduler.model(fields.model.as_deref())?;
        let (model, artifacts) = (model.to_string(), Arc::clone(artifacts));
        let app = Arc::clone(app);
        blocking(move || {
            let output = fields.output(&app.settings)?;
            let deadline = fields.deadline(&app.settings)?;
            let request = fields.request(&artifacts, &app.settings)?;
            Ok(Asked { model, artifacts, request, output, deadline })
        })
        .await
    }
}

impl Drawing {
    /// Orders what `fields` ask for, with so many whole pictures on the way.
    ///
    /// # Errors
    /// As [`Asked::check`]; when the engine does not take the order.
    pub async fn begin(
        app: &Arc<App>,
        client: &Client,
        fields: PictureFields,
        partials: usize,
    ) -> Result<Drawing, ApiError> {
        let asked = Asked::check(app, fields).await?;
        let deadline = asked.deadline.unwrap_or(app.settings.deadline);
        let id = Uuid::new_v4().simple().to_string();
        tracing::Span::current().record("order", &*id); // what the engine's log lines call it
        let handle = app.scheduler.submit(Task {
            id,
            model: asked.model.clone(),
            request: asked.request.clone(),
            client: Arc::clone(&client.0),
            deadline: Some(Instant::now() + deadline),
            preview_every: None,
            partial_images: partials,
            no_batching: false,
        })?;
        Ok(Drawing { asked: Arc::new(asked), handle })
    }

    /// What happens next, [`TaskEvent::Done`] at the end.
    ///
    /// # Errors
    /// Why there will be no picture.
    pub async fn next(&mut self) -> Result<TaskEvent, ApiError> {
        match self.handle.next().await {
            Some(TaskEvent::Failed(failure)) => Err(failure.into()),
            Some(event) => Ok(event),
            None => Err(Failure::Worker("its thread ended".to_string()).into()),
        }
    }

    /// Waits for the pictures.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn pictures(mut self) -> Result<Pictures, ApiError> {
        loop {
            if let TaskEvent::Done(drawn) = self.next().await? {
                return self.finish(*drawn).await;
            }
        }
    }

    /// The pictures that were drawn, as they are sent.
    ///
    /// # Errors
    /// When one cannot be encoded.
    pub async fn finish(&self, drawn: TaskOutput) -> Result<Pictures, ApiError> {
        let asked = Arc::clone(&self.asked);
        blocking(move || {
            let Asked { model, artifacts, request, output, .. } = &*asked;
            let encoded = output.encode(&drawn.images, artifacts, request).map_err(unsendable)?;
            Ok(Pictures { encoded, figures: Figures::new(model, request, &drawn) })
        })
        .await
    }

    /// A picture on the way, as it is sent.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub async fn partial(&self, image: Image) -> Result<Vec<u8>, ApiError> {
        let output = self.asked.output;
        blocking(move || output.encode_bare(&image).map_err(unsendable)).await
    }
}

impl Figures {
    /// Of `request` by `model`.
    pub fn new(model: &str, request: &Request, drawn: &TaskOutput) -> Figures {
        Figures {
            model: model.to_string(),
            seeds: (request.seed..).take(drawn.images.len()).collect(),
            size: format!("{}x{}", request.width, request.height),
            steps: request.steps,
            core_runs: refreshes(&drawn.plan),
            sampler: request.sampler,
            guidance: request.guidance_scale,
            cache: request.cache_policy.to_string(),
            truncated: drawn.truncated.iter().map(|field| name(field).to_string()).collect(),
            queued_seconds: drawn.queued.as_secs_f64(),
            drawing_seconds: drawn.drawing.as_secs_f64(),
        }
    }
}

fn unsendable(error: hydit::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding_failed", error.to_string())
}
