//! The field `class`: the prompt of a model that draws classes.

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::class_label::Classes;
use serde_json::Value;

use super::ImageFields;
use crate::server::http::error::ApiError;

/// Its name.
pub const CLASS: &str = "class";

/// The prompt, from one class or several.
pub(super) fn prompt_of(value: &Value) -> Result<Value, ApiError> {
    let one = |value: &Value| match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(name) => Some(name.clone()),
        _ => None,
    };
    let classes: Option<Vec<String>> = match value {
        Value::Array(several) => several.iter().map(one).collect(),
        value => one(value).map(|class| vec![class]),
    };
    let classes = classes.filter(|classes| !classes.is_empty()).ok_or_else(|| {
        let message = "class: expected the number or the name of a class, or a sequence of them";
        ApiError::field(CLASS, message)
    })?;
    Ok(Value::from(classes.join(", ")))
}

/// Has `request` draw each of its classes, if `fields` do not say how many pictures.
///
/// # Errors
/// The field is there, and the model of `artifacts` draws no classes.
pub(super) fn draw_each(
    fields: &ImageFields,
    artifacts: &Artifacts,
    request: &mut Request,
) -> Result<(), ApiError> {
    if !artifacts.manifest.model.draws_classes() {
        let message = "class: this model draws what a text says, no classes: use prompt";
        return if fields.given(CLASS) { Err(ApiError::field(CLASS, message)) } else { Ok(()) };
    }
    if !fields.given("n") {
        request.num_images = Classes::named(&request.prompt).count();
    }
    Ok(())
}

/// `error`, told of this field if that is the prompt of `fields`.
pub(super) fn told_of(fields: &ImageFields, error: ApiError) -> ApiError {
    if fields.given(CLASS) && error.param.as_deref() == Some("prompt") {
        return ApiError::field(CLASS, error.message.replacen("prompt", CLASS, 1));
    }
    error
}
