//! Records that this version cannot read as they are, because another one has written them or they
//! are damaged: what can be read of them, and what is told of the rest.

use hydit::Request;
use hydit::cache::CachePolicy;
use hydit::image::Format;
use hydit::sampler::{SamplerKind, Spacing};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::record::{JobOutcome, JobRecord, JobSpec};
use crate::server::output::Output;

/// Key of [`JobRecord::spec`] in JSON.
const SPEC: &str = "asked";
/// Key of [`JobRecord::outcome`] in JSON.
const OUTCOME: &str = "end";
/// Names of fields of a request as earlier versions have written them, and as they are now.
const EARLIER: [(&str, &str); 4] = [
    ("num_inference_steps", "steps"),
    ("guidance", "guidance_scale"),
    ("n", "num_images"),
    ("cache", "cache_policy"),
];

/// Why a record could not be read as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// A word for programs.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
    /// The fields of [`JobSpec`] that were not understood, as they are stored. Others stand in
    /// their places.
    pub fields: Map<String, Value>,
}

/// Reads the record of the job `id`. What is not understood of it is replaced, and told in
/// [`JobRecord::unreadable`].
pub fn read(id: Uuid, json: &[u8]) -> JobRecord {
    let error = match serde_json::from_slice(json) {
        Ok(record) => return record,
        Err(error) => error,
    };
    let mut stored: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    let spec = stored.remove(SPEC);
    let mut sound = serde_json::to_value(blank(id)).expect("plain values");
    let mut wrong = Vec::new();
    for (key, value) in stored {
        if let Err(error) = adopt(&mut sound, "", &key, &value) {
            wrong.push((key, error));
        }
    }
    let mut fields = Map::new();
    for (key, value) in spec.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let key = EARLIER.iter().find(|(old, _)| old == key).map_or(key.as_str(), |(_, new)| new);
        if let Err(error) = adopt(&mut sound, &format!("/{SPEC}"), key, value) {
            wrong.push((key.to_string(), error));
            fields.insert(key.to_string(), value.clone());
        }
    }
    let code = match &wrong[..] {
        [(key, _)] if key == "cache_policy" => "cache_unknown",
        _ => "record_unreadable",
    };
    let told: Vec<String> = wrong.iter().map(|(key, error)| format!("{key}: {error}")).collect();
    let told = if told.is_empty() { error.to_string() } else { told.join("; ") };
    let message = format!("this version cannot read the job's record: {told}; ask again");
    let mut record: JobRecord = serde_json::from_value(sound).expect("each field was tried");
    if wrong.iter().any(|(key, _)| key == OUTCOME) {
        record.outcome =
            Some(JobOutcome::Failed { code: code.to_string(), message: message.clone() });
    }
    record.unreadable = Some(Box::new(Unreadable { code, message, fields }));
    record
}

/// `record` as JSON, with what was not understood when it was read.
pub fn write(record: &JobRecord) -> Vec<u8> {
    let mut json = serde_json::to_value(record).expect("strings and numbers are valid JSON");
    if let (Some(unreadable), Some(spec)) = (&record.unreadable, json[SPEC].as_object_mut()) {
        spec.extend(unreadable.fields.clone());
    }
    serde_json::to_vec(&json).expect("it is JSON")
}

/// Puts a stored field into the object of `sound` at `at`, where it can be read there.
fn adopt(sound: &mut Value, at: &str, key: &str, value: &Value) -> Result<(), serde_json::Error> {
    let mut tried = sound.clone();
    let object = tried.pointer_mut(at).and_then(Value::as_object_mut).expect("an object");
    object.insert(key.to_string(), value.clone());
    serde_json::from_value::<JobRecord>(tried.clone())?;
    *sound = tried;
    Ok(())
}

/// Number of [`blank`]: no job has it.
pub const NO_NUMBER: u64 = u64::MAX;

/// A record of nothing.
fn blank(id: Uuid) -> JobRecord {
    let request = Request {
        prompt: String::new(),
        negative_prompt: String::new(),
        width: 0,
        height: 0,
        steps: 0,
        guidance_scale: 0.0,
        guidance_rescale: 0.0,
        sampler: SamplerKind::Ddpm,
        spacing: Spacing::Leading,
        seed: 0,
        num_images: 1,
        init_image: None,
        image_prompt: None,
        cache_policy: CachePolicy::off(),
        loras: Vec::new(),
        controls: Vec::new(),
        guidance_interval: Default::default(),
        pag_scale: 0.0,
        pag_adaptive_scale: 0.0,
    };
    JobRecord {
        id,
        number: NO_NUMBER,
        client: String::new(),
        created: 0,
        started: None,
        finished: None,
        starts: 0,
        spec: JobSpec {
            model: String::new(),
            manifest_sha256: String::new(),
            request,
            output: Output { format: Format::Png, quality: 100, metadata: false },
            preview_every: None,
            deadline: None,
        },
        idempotency: None,
        outcome: None,
        unreadable: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::store::tests::record;
    use super::*;

    /// What is read of a record with `changes` in its JSON.
    fn changed(changes: impl Fn(&mut Value)) -> (JobRecord, JobRecord) {
        let record = record("ann");
        let mut json = serde_json::to_value(&record).expect("plain values");
        changes(&mut json);
        let json = serde_json::to_vec(&json).expect("JSON");
        (record.clone(), read(record.id, &json))
    }

    #[test]
    fn a_policy_of_another_version_is_told_and_all_else_is_read() {
        for key in ["cache_policy", "cache"] {
            let (mut record, mut read) = changed(|json| {
                let spec = json[SPEC].as_object_mut().expect("an object");
                spec.remove("cache_policy");
                spec.insert(key.to_string(), json!("dream:7"));
            });
            let unreadable = read.unreadable.take().expect("it is another");
            assert_eq!(unreadable.code, "cache_unknown");
            assert!(
                unreadable.message.contains("\"dream:7\" is not understood"),
                "{}",
                unreadable.message
            );
            assert_eq!(
                Value::from(unreadable.fields.clone()),
                json!({ "cache_policy": "dream:7" })
            );
            record.spec.request.cache_policy = CachePolicy::off();
            assert_eq!(read, record);
            // And it is still there when the record was written again.
            read.unreadable = Some(unreadable);
            assert_eq!(super::read(read.id, &write(&read)), read);
        }
    }

    #[test]
    fn names_of_before_are_understood_beside_what_is_not() {
        let (record, read) = changed(|json| {
            let spec = json[SPEC].as_object_mut().expect("an object");
            for (new, old) in [("steps", "num_inference_steps"), ("num_images", "n")] {
                let value = spec.remove(new).expect("it is there");
                spec.insert(old.to_string(), value);
            }
            spec.insert("sampler".to_string(), json!("heun"));
        });
        assert_eq!(read.spec.request.steps, record.spec.request.steps);
        assert_eq!(read.spec.request.num_images, record.spec.request.num_images);
        let unreadable = read.unreadable.expect("there is no such sampler");
        assert_eq!(unreadable.code, "record_unreadable");
        assert!(
            unreadable.message.contains("sampler: unknown variant `heun`"),
            "{}",
            unreadable.message
        );
    }

    #[test]
    fn an_end_that_is_not_understood_is_an_end() {
        let (_, read) = changed(|json| json[OUTCOME] = json!({ "evaporated": {} }));
        assert!(matches!(read.outcome, Some(JobOutcome::Failed { .. })), "{read:?}");
    }

    #[test]
    fn what_is_no_record_is_read_as_one_of_nothing() {
        for json in ["", "{", "[]", "{}", "null", "\u{0}"] {
            let id = Uuid::new_v4();
            let read = read(id, json.as_bytes());
            assert_eq!((read.id, read.client.as_str()), (id, ""));
            let unreadable = read.unreadable.expect("it is none");
            assert_eq!((unreadable.code, unreadable.fields.len()), ("record_unreadable", 0));
        }
    }
}
