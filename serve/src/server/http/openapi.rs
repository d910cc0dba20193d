//! The OpenAPI document: `openapi.yaml`, with the settings filled in.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::server::app::App;
use crate::server::metrics;
use crate::server::settings::Settings;

const TEMPLATE: &str = include_str!("openapi.yaml");
/// Ends the lines of the template that are left out where no API key is needed.
const WITH_KEYS: &str = "# with keys";

#[derive(Deserialize)]
struct Template {
    #[serde(rename = "shared")]
    _shared: IgnoredAny,
    document: Value,
}

/// The route that serves the document. Also begins the metrics of all routes in it.
pub fn routes(settings: &Settings) -> Router<Arc<App>> {
    let document = document(settings);
    let paths = document["paths"].as_object().expect("the document has paths");
    paths.keys().for_each(|path| metrics::route(path));
    let json = [(header::CONTENT_TYPE, "application/json")];
    let document = Bytes::from(document.to_string());
    Router::new().route("/openapi.json", get(move || async move { (json, document) }))
}

/// The document of a server with these settings.
pub fn document(settings: &Settings) -> Value {
    let with_keys = !settings.api_keys.is_empty();
    let lines = TEMPLATE.lines().filter(|line| with_keys || !line.ends_with(WITH_KEYS));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    let models = settings.models.iter().map(|(name, _)| name).chain(settings.aliases.keys());
    let models: Vec<Value> = models.map(|name| json!(name)).collect();
    for (name, value) in [
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("models_or_none", json!([models.as_slice(), &[json!(""), Value::Null]].concat())),
        ("models", json!(models)),
        ("max_n", json!(settings.limits.max_n)),
        ("max_steps", json!(settings.limits.max_steps)),
        ("max_pixels", json!(settings.limits.max_pixels)),
        ("deadline", json!(settings.deadline.as_secs_f64())),
        ("metadata", json!(settings.metadata)),
        // A schedule is a file of the server, which answers do not name.
        ("cache", json!(Some(&settings.cache).filter(|cache| !cache.starts_with("schedule:")))),
    ] {
        text = text.replace(&format!("${{{name}}}"), &value.to_string()); // JSON is YAML
    }
    let options = serde_saphyr::options! { strict_booleans: true }; // `n` is a name
    let template = serde_saphyr::from_str_with_options::<Template>(&text, options);
    template.expect("the template is YAML").document
}

#[cfg(test)]
mod tests;
