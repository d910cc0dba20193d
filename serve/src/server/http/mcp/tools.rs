//! What the tools are called, and what they take.

use std::sync::Arc;

use hydit::request::{MAX_GUIDANCE, MAX_PROMPT};
use hydit::sampler::SamplerKind;
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value, json};
use strum::VariantArray;

use crate::server::http::error::ApiError;
use crate::server::http::image::MAX_SEED;
use crate::server::settings::Limits;

/// The format of images where a call names none: clients of the protocol bound what they take, some
/// to 1 MiB, which a PNG is likely to exceed in base64.
pub const DEFAULT_FORMAT: &str = "jpeg";

/// All tools of a server with these limits.
pub fn all(limits: &Limits) -> Vec<Tool> {
    let job = ("id", json!({ "type": "string", "description": "Id of the job." }));
    vec![
        tool(
            "list_models",
            "List the models of this server with their default and usual sizes, samplers and LoRAs.",
            [],
            true,
        ),
        tool(
            "draw",
            "Draw images and wait for them. Returns the images, and how they were made.",
            image(limits),
            false,
        ),
        tool(
            "create_job",
            "Begin to draw images without waiting. Returns the id of a job, which goes on whatever \
             happens to the connection.",
            image(limits),
            false,
        ),
        tool(
            "get_job",
            "Tell how far a job is: queued, running with the number of steps done, done, failed or \
             cancelled.",
            [job.clone()],
            true,
        ),
        tool(
            "get_picture",
            "Return a picture of a job that is done.",
            [
                job.clone(),
                (
                    "index",
                    json!({
                        "type": "integer", "minimum": 0, "default": 0,
                        "description": "Which of the job's pictures, counted from 0."
                    }),
                ),
            ],
            true,
        ),
        tool(
            "cancel_job",
            "Cancel a job that has not ended; forget one that has, with its pictures.",
            [job],
            false,
        ),
    ]
}

/// The arguments that describe images: those fields of the other APIs that an agent can fill in.
fn image(limits: &Limits) -> Vec<(&'static str, Value)> {
    let samplers: Vec<String> = SamplerKind::VARIANTS.iter().map(ToString::to_string).collect();
    vec![
        (
            "prompt",
            json!({
                "type": "string", "maxLength": MAX_PROMPT,
                "description": "What to draw, in Chinese or English; of a model with num_classes in \
                                list_models, the number or the name of a class, or several with \
                                commas between them."
            }),
        ),
        (
            "negative_prompt",
            json!({
                "type": "string", "maxLength": MAX_PROMPT, "description": "What not to draw."
            }),
        ),
        (
            "model",
            json!({ "type": "string", "description": "One of list_models; the first if left out." }),
        ),
        (
            "size",
            json!({
                "type": "string", "pattern": "^[0-9]+x[0-9]+$",
                "description": "WIDTHxHEIGHT in pixels; list_models tells the usual ones."
            }),
        ),
        (
            "n",
            json!({
                "type": "integer", "minimum": 1, "maximum": limits.max_n, "default": 1,
                "description": "Number of images; each has a seed one above the one before."
            }),
        ),
        (
            "seed",
            json!({
                "type": "integer", "minimum": 0, "maximum": MAX_SEED,
                "description": "The same seed draws the same image; random if left out."
            }),
        ),
        (
            "steps",
            json!({
                "type": "integer", "minimum": 1, "maximum": limits.max_steps,
                "description": "Denoising steps: fewer are faster."
            }),
        ),
        (
            "guidance",
            json!({
                "type": "number", "minimum": 0, "maximum": MAX_GUIDANCE,
                "description": "How closely the prompt is followed."
            }),
        ),
        (
            "output_format",
            json!({
                "type": "string", "enum": ["jpeg", "png", "webp"], "default": DEFAULT_FORMAT,
                "description": "Only a PNG carries the parameters. It may be too large for clients that \
                                bound a message to 1 MiB."
            }),
        ),
        ("sampler", json!({ "type": "string", "enum": samplers })),
        (
            "cache",
            json!({
                "type": "string",
                "description": "Cache policy, such as off, N3 or auto:30dB: faster at the cost of likeness."
            }),
        ),
        (
            "lora",
            json!({
                "type": "array",
                "description": "LoRAs of list_models to draw with.",
                "items": {
                    "type": "object", "required": ["name"],
                    "properties": {
                        "name": { "type": "string" },
                        "weight": { "type": "number", "default": 1 }
                    }
                }
            }),
        ),
    ]
}

fn tool(
    name: &'static str,
    description: &'static str,
    arguments: impl IntoIterator<Item = (&'static str, Value)>,
    only_reads: bool,
) -> Tool {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (argument, schema) in arguments {
        if REQUIRED.contains(&argument) {
            required.push(argument);
        }
        properties.insert(argument.to_string(), schema);
    }
    let Value::Object(schema) = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false
    }) else {
        unreachable!("it was written as an object")
    };
    let annotations = ToolAnnotations::new().read_only(only_reads).open_world(false);
    let annotations = annotations.destructive(name == "cancel_job");
    Tool::new(name, description, Arc::new(schema)).with_annotations(annotations)
}

/// The arguments that no tool which takes them can do without.
const REQUIRED: [&str; 2] = ["prompt", "id"];

/// Checks that `arguments` are those of `tool`, and all that it needs. Their values are checked
/// where they are read.
///
/// # Errors
/// 400 that names the argument.
pub fn check(tool: &Tool, arguments: &Map<String, Value>) -> Result<(), ApiError> {
    let known = tool.input_schema["properties"].as_object().expect("every tool has them");
    if let Some(name) = arguments.keys().find(|name| !known.contains_key(*name)) {
        let name: String = name.chars().take(64).collect();
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let all = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        let message = format!("{name:?} is no argument of {}; its arguments are: {all}", tool.name);
        return Err(ApiError::field(&name, message));
    }
    let missing = REQUIRED.iter().find(|name| {
        known.contains_key(**name) && arguments.get(**name).is_none_or(Value::is_null)
    });
    match missing {
        Some(name) => Err(ApiError::field(name, format!("{name}: {} needs it", tool.name))),
        None => Ok(()),
    }
}
