//! The document against the code.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use serde::Serialize;
use tower::ServiceExt;

use super::*;
use crate::server::clock::Clock;
use crate::server::http::image::{ImageFields, NAMES};
use crate::server::http::jobs::JobFields;
use crate::server::http::openai::GenerationFields;
use crate::server::http::router::router;
use crate::server::settings::ApiKey;

/// The sources of the files that have routes.
const SOURCES: [&str; 11] = [
    include_str!("../openai.rs"),
    include_str!("../lent.rs"),
    include_str!("../loras.rs"),
    include_str!("../models.rs"),
    include_str!("../capabilities.rs"),
    include_str!("../jobs/mod.rs"),
    include_str!("../presets.rs"),
    include_str!("../tokenize.rs"),
    include_str!("../oip/mod.rs"),
    include_str!("../sdapi/mod.rs"),
    include_str!("../ops.rs"),
];

fn settings() -> Settings {
    Settings { models: vec![("emoji".to_string(), "emoji".into())], ..Settings::default() }
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn field_names<T: Serialize + Default>() -> BTreeSet<String> {
    let fields = serde_json::to_value(T::default()).expect("plain values");
    names(&fields).into_iter().map(String::from).collect()
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let document = document(&settings());
    let routes = SOURCES.iter().flat_map(|source| source.split(".route(\"").skip(1));
    let routes = routes.map(|rest| rest.split('"').next().expect("a path ends"));
    assert_eq!(names(&document["paths"]), routes.collect());
}

#[tokio::test]
async fn every_method_of_a_route_is_in_the_document_and_the_other_way_round() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { data_dir: folder.path().to_path_buf(), ..Settings::default() };
    let document = document(&settings);
    let router = router(App::open(settings, Clock::system()).expect("it opens without a model"));
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let ask = Request::trace(path.replace(['{', '}'], "x")).header(header::HOST, "localhost");
        let ask = ask.body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(ask).await.expect("no service fails");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = answer.headers()[header::ALLOW].to_str().expect("text").to_lowercase();
        let allowed = allowed.split(',').filter(|method| *method != "head");
        assert_eq!(names(operations), allowed.collect(), "{path}");
    }
}

#[test]
fn every_field_is_in_the_document_and_the_other_way_round() {
    let document = document(&settings());
    let schemas = &document["components"]["schemas"];
    let mut common = field_names::<ImageFields>();
    // Of a request for images: all but those that have other names.
    let request = names(&schemas["RequestView"]["properties"]);
    assert!(request.contains("guidance_rescale"), "{request:?}");
    common.extend(request.into_iter().map(String::from));
    common.extend(NAMES.iter().map(|(name, _)| name.to_string()));
    common.remove("preview_every");
    for (schema, own) in [
        ("GenerationRequest", field_names::<GenerationFields>()),
        ("JobFields", field_names::<JobFields>()),
    ] {
        let all: BTreeSet<String> = common.union(&own).cloned().collect();
        let documented = names(&schemas[schema]["properties"]);
        assert_eq!(documented, all.iter().map(String::as_str).collect(), "{schema}");
        assert_eq!(schemas[schema]["additionalProperties"], false);
    }
}

#[test]
fn settings_are_filled_in_and_keys_add_their_answers() {
    let key = ApiKey { name: "ann".to_string(), secret: "0123456789abcdef".to_string() };
    for keys in [vec![], vec![key]] {
        let document = document(&Settings { api_keys: keys.clone(), ..settings() });
        let text = document.to_string();
        assert!(!text.contains("${"), "{text}");
        assert_eq!(text.contains("\"401\""), !keys.is_empty());
        assert_eq!(document["security"].is_array(), !keys.is_empty());
        let fields = &document["components"]["schemas"]["GenerationRequest"]["properties"];
        assert_eq!(fields["model"]["enum"], json!(["emoji", "", null]));
        assert_eq!(fields["steps"]["maximum"], json!(100));
        assert_eq!(fields["deadline"]["maximum"], json!(600.0));
        let size = fields["size"]["description"].as_str().expect("a text");
        assert!(size.ends_with("At most 1638400 pixels."), "{size}");
    }
}

#[test]
fn references_lead_somewhere() {
    let document = document(&settings());
    let text = document.to_string();
    let schemas = names(&document["components"]["schemas"]);
    let references = text.split("\"#/components/schemas/").skip(1);
    let references: BTreeSet<&str> =
        references.map(|rest| rest.split('"').next().expect("it ends")).collect();
    let unused = BTreeSet::from(["GenerationRequest", "JobFields"]);
    assert_eq!(schemas, &references | &unused);
}
