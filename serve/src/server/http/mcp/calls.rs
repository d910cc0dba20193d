//! What the tools do.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, ContentBlock, ProgressNotificationParam, RequestMetaObject};
use rmcp::service::Peer;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tools::DEFAULT_FORMAT;
use crate::server::app::App;
use crate::server::http::capabilities::Capabilities;
use crate::server::http::drawing::{Carried, Drawing};
use crate::server::http::error::ApiError;
use crate::server::http::fields::read;
use crate::server::http::guard::Client;
use crate::server::http::jobs::{self, JobFields, JobView, job_id};
use crate::server::jobs::Removal;
use crate::server::scheduler::TaskEvent;
use crate::server::spawn::blocking;

/// Quality of a JPEG.
const QUALITY: u8 = 90;

/// A call of a tool.
pub struct Call<'a> {
    pub app: &'a Arc<App>,
    pub client: Client,
    /// Who is told of progress.
    pub peer: &'a Peer<RoleServer>,
    /// What came with the call, perhaps a token for progress.
    pub meta: &'a RequestMetaObject,
}

#[derive(Deserialize)]
struct JobArguments {
    id: String,
    #[serde(default)]
    index: usize,
}

impl Call<'_> {
    /// Does what the tool `name` does, whose arguments were looked through.
    ///
    /// # Errors
    /// As the same request to the other APIs.
    ///
    /// # Panics
    /// When there is no such tool.
    pub async fn run(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<CallToolResult, ApiError> {
        match name {
            "list_models" => self.list_models().await,
            "draw" => self.draw(with_format(arguments)).await,
            "create_job" => self.create_job(with_format(arguments)).await,
            "get_job" => self.get_job(&read(arguments)?).await,
            "get_picture" => self.get_picture(&read(arguments)?).await,
            "cancel_job" => self.cancel_job(&read(arguments)?).await,
            _ => unreachable!("{name} is in the list of tools"),
        }
    }

    async fn list_models(&self) -> Result<CallToolResult, ApiError> {
        let app = Arc::clone(self.app);
        let capabilities = blocking(move || Capabilities::of(&app)).await?;
        Ok(structured(json!({ "models": capabilities.models, "loras": capabilities.loras })))
    }

    async fn draw(&self, arguments: Map<String, Value>) -> Result<CallToolResult, ApiError> {
        let mut drawing =
            Drawing::begin(self.app, &self.client, read(arguments)?, 0, Carried::Base64).await?;
        let steps = drawing.spec().request.steps_taken();
        let mut done = 0;
        let output = loop {
            match drawing.next().await? {
                TaskEvent::Step { .. } => {
                    done += 1;
                    self.tell(done, steps).await;
                }
                TaskEvent::Done(output) => break output,
                _ => {}
            }
        };
        drawing
            .encode(*output, |spec, images| {
                let media_type = spec.output.format.media_type();
                let mut result =
                    structured(json!({ "seed": spec.request.seed, "hydit": images.figures }));
                let files = images.files.into_iter();
                result.content.extend(files.map(|file| picture(&file, media_type)));
                result
            })
            .await
    }

    /// Tells the client that `done` of `steps` are done, if it wants to know.
    async fn tell(&self, done: usize, steps: usize) {
        if let Some(token) = self.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, done as f64);
            // A client that does not hear it is gone, which ends the call.
            let _ = self.peer.notify_progress(progress.with_total(steps as f64)).await;
        }
    }

    async fn create_job(&self, arguments: Map<String, Value>) -> Result<CallToolResult, ApiError> {
        let fields: JobFields = read(arguments)?;
        let (job, _) = jobs::submit(self.app, &self.client, fields, None, None).await?;
        Ok(structured(json!(JobView::from(job))))
    }

    async fn get_job(&self, asked: &JobArguments) -> Result<CallToolResult, ApiError> {
        let job = self.app.jobs.get(&self.client.0, job_id(&asked.id)?).await?;
        Ok(structured(json!(JobView::from(job))))
    }

    async fn get_picture(&self, asked: &JobArguments) -> Result<CallToolResult, ApiError> {
        let id = job_id(&asked.id)?;
        let (_, output, file) = self.app.jobs.image(&self.client.0, id, asked.index).await?;
        Ok(CallToolResult::success(vec![picture(&file, output.format.media_type())]))
    }

    async fn cancel_job(&self, asked: &JobArguments) -> Result<CallToolResult, ApiError> {
        let removal = self.app.jobs.remove(&self.client.0, job_id(&asked.id)?).await?;
        Ok(structured(match removal {
            Removal::Cancelled(job) => json!(JobView::from(*job)),
            Removal::Deleted => json!({ "id": asked.id, "status": "forgotten" }),
        }))
    }
}

/// The arguments, with a format if they name none, and with what goes with the format: a quality that
/// keeps a JPEG small, the parameters in a PNG.
fn with_format(mut arguments: Map<String, Value>) -> Map<String, Value> {
    let format = arguments.entry("output_format").or_insert(json!(DEFAULT_FORMAT));
    let (name, value) = match format.as_str() {
        Some("jpeg") => ("output_compression", json!(QUALITY)),
        Some("png") => ("metadata", json!(true)),
        _ => return arguments,
    };
    arguments.insert(name.to_string(), value);
    arguments
}

/// A result as data, and as text for those who read no data.
fn structured(value: Value) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(value.to_string())]);
    result.structured_content = Some(value);
    result
}

fn picture(file: &[u8], media_type: &'static str) -> ContentBlock {
    ContentBlock::image(BASE64_STANDARD.encode(file), media_type)
}
