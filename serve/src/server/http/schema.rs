//! What utoipa cannot say of the fields of a picture: the bounds that the operator has set, second
//! names, fields that exclude each other, and that there are no other fields.

use hydit_graphs::scheduler::Spacing;
use serde_json::{Map, Value, json};
use strum::VariantArray;

use super::{Format, oip};
use crate::server::settings::Settings;
use hydit::sampler::SamplerKind;

/// Second names of fields.
const ALIASES: [(&str, &str); 2] =
    [("steps", "num_inference_steps"), ("guidance", "guidance_scale")];

/// Completes the document's schemas.
pub fn complete(schemas: &mut Value, settings: &Settings) {
    bound(&mut schemas["PictureFields"]["properties"], settings);
    oip::schema::complete(schemas);
    let parts = schemas.clone();
    let schemas = schemas.as_object_mut().expect("schemas have names");
    for schema in schemas.values_mut() {
        if let Some(flat) = flatten(schema, &parts) {
            *schema = flat;
        }
        if schema["properties"].get(ALIASES[0].1).is_some() {
            schema["additionalProperties"] = json!(false);
            if let Some(every) = schema["properties"].get_mut("preview_every") {
                every["maximum"] = json!(settings.limits.max_steps);
            }
            schema["allOf"] = rules(&schema["properties"]);
        }
    }
}

/// What the settings and the code allow.
fn bound(fields: &mut Value, settings: &Settings) {
    fields["model"]["enum"] = or_null(&names(settings));
    fields["n"]["maximum"] = json!(settings.limits.max_n);
    fields["steps"]["maximum"] = json!(settings.limits.max_steps);
    fields["deadline"]["maximum"] = json!(settings.deadline.as_secs_f64());
    fields["metadata"]["default"] = json!(settings.metadata);
    fields["cache"]["default"] = json!(settings.cache);
    let pixels = settings.limits.max_pixels;
    let size = fields["size"]["description"].as_str().expect("every field is described");
    fields["size"]["description"] = json!(format!("{size} At most {pixels} pixels."));
    fields["sampler"]["enum"] = or_null(SamplerKind::VARIANTS);
    fields["spacing"]["enum"] = or_null(Spacing::ALL);
    fields["output_format"]["enum"] = or_null(&Format::ALL);
    // How wide numbers are is nobody's business: the bounds say all.
    for field in fields.as_object_mut().expect("fields have names").values_mut() {
        if field.get("minimum").is_some() {
            field.as_object_mut().expect("a field is an object").remove("format");
        }
    }
    for (name, alias) in ALIASES {
        fields[alias] = fields[name].clone();
        fields[alias]["description"] = json!(format!("Another name of `{name}`."));
    }
}

/// The names of the models.
pub fn names(settings: &Settings) -> Vec<&str> {
    settings.models.iter().map(|(name, _)| name.as_str()).collect()
}

fn or_null<T: ToString>(values: &[T]) -> Value {
    let names = values.iter().map(|value| json!(value.to_string()));
    names.chain([Value::Null]).collect()
}

/// One object of a schema that is several objects at once.
fn flatten(schema: &Value, parts: &Value) -> Option<Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in schema["allOf"].as_array()? {
        let part = match part["$ref"].as_str() {
            Some(name) => &parts[name.rsplit('/').next().expect("a reference has a name")],
            None => part,
        };
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    let mut flat = json!({ "type": "object", "properties": properties, "required": required });
    flat["description"] = schema["description"].clone();
    Some(flat)
}

/// Fields that exclude each other.
fn rules(fields: &Value) -> Value {
    let only = |name: &str, values: Value| json!({ "properties": { name: { "enum": values } } });
    let asks = |name: &str, values: Value| json!({ "properties": { name: { "enum": values } }, "required": [name] });
    let number = json!({ "type": "number" });
    let both = |(name, alias): &(&str, &str)| {
        let values = json!({ *name: number, *alias: number });
        json!({ "not": { "properties": values, "required": [name, alias] } })
    };
    let mut rules: Vec<Value> = ALIASES.iter().map(both).collect();
    rules.push(json!({
        "if": asks("output_format", json!(["jpeg"])),
        "else": only("output_compression", json!([100, null])),
    }));
    rules.push(json!({
        "if": asks("output_format", json!(["jpeg", "webp"])),
        "then": only("metadata", json!([false, null])),
    }));
    if fields.get("stream").is_some() {
        rules.push(json!({
            "if": asks("stream", json!([true])),
            "then": only("n", json!([1, null])),
            "else": only("partial_images", json!([0, null])),
        }));
    }
    json!(rules)
}
