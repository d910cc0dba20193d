//! The protocol over gRPC: the same models and tensors as over REST.

mod frame;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::routing::post;
use serde_json::{Map, Value, json};

pub use self::frame::shape_errors;
use self::frame::{Answer, Asked};
use super::tensors::{self, Datatype, Declared, IMAGE, INPUTS, OUTPUTS, VERSION, elements};
use super::wire::{Given, from_bytes};
use super::{model_of_version, parameters};
use crate::inference::{
    Empty, InferParameter, InferTensor, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataResponse, ModelRequest, ParameterChoice, ReadyResponse, ServerLiveResponse,
    ServerMetadataResponse, TensorMetadata,
};
use crate::server::app::App;
use crate::server::http::body::Place;
use crate::server::http::drawing::{Carried, Drawing, EncodedImages, ImageSpec};
use crate::server::http::error::ApiError;
use crate::server::http::guard::Client;
use crate::server::http::image::ImageFields;

/// The path of the methods that need no key: health checks.
pub const OPEN: [&str; 2] =
    ["/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"];

/// The methods of the service.
pub fn routes() -> Router<Arc<App>> {
    let methods = Router::new()
        .route("/ServerLive", post(server_live))
        .route("/ServerReady", post(server_ready))
        .route("/ServerMetadata", post(server_metadata))
        .route("/ModelReady", post(model_ready))
        .route("/ModelMetadata", post(model_metadata))
        .route("/ModelInfer", post(model_infer));
    Router::new().nest("/inference.GRPCInferenceService", methods)
}

async fn server_live(_: Asked<Empty>) -> Answer<ServerLiveResponse> {
    Answer(ServerLiveResponse { live: true })
}

async fn server_ready(State(app): State<Arc<App>>, _: Asked<Empty>) -> Answer<ReadyResponse> {
    Answer(ReadyResponse { ready: app.scheduler.ready().is_ok() })
}

async fn server_metadata(_: Asked<Empty>) -> Answer<ServerMetadataResponse> {
    let (name, version) = ("hydit".to_string(), env!("CARGO_PKG_VERSION").to_string());
    Answer(ServerMetadataResponse { name, version, extensions: Vec::new() })
}

async fn model_ready(
    State(app): State<Arc<App>>,
    Asked(asked): Asked<ModelRequest>,
) -> Result<Answer<ReadyResponse>, ApiError> {
    model_of_version(&app, Some(&asked.name), &asked.version)?;
    Ok(Answer(ReadyResponse { ready: app.scheduler.ready().is_ok() }))
}

async fn model_metadata(
    State(app): State<Arc<App>>,
    Asked(asked): Asked<ModelRequest>,
) -> Result<Answer<ModelMetadataResponse>, ApiError> {
    let name = model_of_version(&app, Some(&asked.name), &asked.version)?;
    let describe = |tensor: &Declared| {
        let datatype: &str = tensor.datatype.into();
        let (name, datatype) = (tensor.name.to_string(), datatype.to_string());
        TensorMetadata { name, datatype, shape: vec![tensor.elements] }
    };
    Ok(Answer(ModelMetadataResponse {
        name,
        versions: vec![VERSION.to_string()],
        platform: "hydit".to_string(),
        inputs: INPUTS.iter().map(describe).collect(),
        outputs: OUTPUTS.iter().map(describe).collect(),
    }))
}

/// Draws images. A client that ends the call cancels them.
async fn model_infer(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    place: Option<Extension<Place>>,
    Asked(asked): Asked<ModelInferRequest>,
) -> Result<Answer<ModelInferResponse>, ApiError> {
    let model = model_of_version(&app, Some(&asked.model_name), &asked.model_version)?;
    parameters::of_request(Some(&values(&asked.parameters)))?;
    let inputs = read_inputs(&asked)?;
    let mut wanted: Vec<Declared> = Vec::new();
    for output in &asked.outputs {
        let of = format!("the output {}", output.name);
        parameters::of_output(Some(&values(&output.parameters)), &of)?;
        wanted.push(tensors::output(&output.name)?);
    }
    if wanted.is_empty() {
        wanted = OUTPUTS.to_vec();
    }
    let place = place.map(|Extension(place)| place);
    let fields = ImageFields { place, ..tensors::fields(&model, inputs)? };
    let image = wanted.iter().any(|output| output.name == IMAGE);
    let carried = if image { Carried::Bytes } else { Carried::No };
    let drawing = Drawing::begin(&app, &client, fields, 0, carried).await?;
    let id = asked.id;
    let answer = move |_: &ImageSpec, images| answer(model, id, &wanted, &images);
    Ok(Answer(drawing.answer(answer).await?))
}

fn answer(
    model_name: String,
    id: String,
    wanted: &[Declared],
    images: &EncodedImages,
) -> ModelInferResponse {
    let (mut outputs, mut raw_output_contents) = (Vec::new(), Vec::new());
    for output in wanted {
        let (elements, mut raw) = (elements(*output, images), Vec::new());
        elements.write(&mut raw);
        raw_output_contents.push(raw);
        let datatype: &str = output.datatype.into();
        outputs.push(InferTensor {
            name: output.name.to_string(),
            datatype: datatype.to_string(),
            shape: vec![elements.len() as i64],
            ..InferTensor::default()
        });
    }
    ModelInferResponse {
        model_name,
        model_version: VERSION.to_string(),
        id,
        outputs,
        raw_output_contents,
        ..ModelInferResponse::default()
    }
}

fn read_inputs(asked: &ModelInferRequest) -> Result<Vec<(&'static str, Value)>, ApiError> {
    let raw = &asked.raw_input_contents;
    if !raw.is_empty() && raw.len() != asked.inputs.len() {
        let message = format!(
            "{} inputs, but {} entries of raw_input_contents: give one for each, or none",
            asked.inputs.len(),
            raw.len()
        );
        return Err(ApiError::field("raw_input_contents", message));
    }
    let read = |(index, input): (usize, &InferTensor)| {
        let InferTensor { name, datatype, shape, parameters, contents } = input;
        let place = format!("the input {name}");
        let given = Given::check(&place, name, datatype, shape)?;
        parameters::of_input(Some(&values(parameters)), &place)?;
        let element = match (raw.get(index), contents) {
            (Some(raw), None) => from_bytes(raw, given.datatype()),
            (None, Some(contents)) => contents.element(given.datatype()),
            (Some(_), Some(_)) => {
                return Err(given.refuse("give either its contents or raw_input_contents"));
            }
            (None, None) => return Err(given.refuse("it has no contents")),
        };
        given.element(element)
    };
    asked.inputs.iter().enumerate().map(read).collect()
}

impl InferTensorContents {
    /// The one element, which is in the list for this type.
    fn element(&self, datatype: Datatype) -> Option<Value> {
        fn one<T: Clone + Into<Value>>(list: &[T]) -> Option<Value> {
            let [element] = list else { return None };
            Some(element.clone().into())
        }
        let value = match datatype {
            Datatype::Bytes => {
                let [bytes] = &self.bytes[..] else { return None };
                json!(str::from_utf8(bytes).ok()?)
            }
            Datatype::Bool => one(&self.bools)?,
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => one(&self.ints)?,
            Datatype::Int64 => one(&self.int64s)?,
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => one(&self.uints)?,
            Datatype::Uint64 => one(&self.uint64s)?,
            Datatype::Fp32 => one(&self.fp32s)?,
            Datatype::Fp64 => one(&self.fp64s)?,
            Datatype::Fp16 | Datatype::Bf16 => return None, // raw, as the protocol says
        };
        Some(value).filter(|value| !value.is_null()) // JSON has no infinities
    }
}

/// Parameters as REST has them.
fn values(parameters: &HashMap<String, InferParameter>) -> Map<String, Value> {
    let value = |parameter: &InferParameter| match &parameter.choice {
        None => Value::Null,
        Some(ParameterChoice::Bool(value)) => json!(value),
        Some(ParameterChoice::Int64(value)) => json!(value),
        Some(ParameterChoice::String(value)) => json!(value),
        Some(ParameterChoice::Double(value)) => json!(value),
        Some(ParameterChoice::Uint64(value)) => json!(value),
    };
    parameters.iter().map(|(name, parameter)| (name.clone(), value(parameter))).collect()
}
