//! What utoipa cannot say of inference: which inputs and outputs there are, and what is in them.

use serde_json::{Value, json};

use super::tensors::{Declared, INPUTS, OUTPUTS};

/// Completes the document's schemas; those of the fields of a picture are complete.
pub fn complete(schemas: &mut Value) {
    let inputs = INPUTS.map(|declared| input(declared, &schemas["PictureFields"]["properties"]));
    schemas["InferInput"] = json!({ "description": "An input.", "oneOf": inputs });
    let list = &mut schemas["InferRequest"]["properties"]["inputs"];
    list["contains"] = json!({ "properties": { "name": { "enum": ["prompt"] } } });
    list["uniqueItems"] = json!(true);
    let name = &mut schemas["OutputRequest"]["properties"]["name"];
    name["enum"] = json!(OUTPUTS.map(|output| output.name));
}

/// An input with its data in the JSON.
fn input(declared: Declared, fields: &Value) -> Value {
    let Declared { name, datatype, .. } = declared;
    let mut element = match name {
        "width" | "height" => {
            json!({ "type": "integer", "minimum": 16, "maximum": 4096, "multipleOf": 16 })
        }
        field => fields[field].clone(),
    };
    // Where a field may be null an input is left away.
    for (keyword, null) in [("type", json!("null")), ("enum", Value::Null)] {
        if let Some(all) = element.get_mut(keyword).and_then(Value::as_array_mut) {
            all.retain(|one| *one != null);
        }
    }
    json!({
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "enum": [name] },
            "datatype": { "type": "string", "enum": [datatype] },
            "shape": { "type": "array", "items": { "type": "integer" }, "enum": [[1], [1, 1]] },
            "data": { "type": "array", "items": element, "minItems": 1, "maxItems": 1 },
        },
    })
}
