//! Skip-DiT against PyTorch modules that `tests/reference/make_dit.py` has of its description:
//! every graph, whole pictures, and the steps that refresh.

use std::collections::BTreeMap;
use std::fs;

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::cache::{CachePolicy, refreshed};
use hydit::sampler::SamplerKind;
use hydit::util::error_chain;
use hydit_export::synth::Shape;
use hydit_export::{Options, export};
use hydit_graphs::config::DitKind;
use hydit_testing::emoji;

use super::{Place, draw_as_references, reference, run_graphs};
use crate::common::golden;

/// The model of the references.
fn place() -> Place {
    Place::new(DitKind::SkipDit, Shape { heads: Some(1), ..Shape::default() })
}

#[test]
fn every_graph_is_its_part_of_the_reference_at_every_cut() {
    let golden = golden::read("skip_dit", "parts");
    run_graphs(&place(), &golden, 1..=13, &[1, 4, 13], |name, n| match name {
        "deep" => format!("deep_{n}"),
        _ => name.to_string(),
    });
}

#[test]
fn pictures_equal_the_references() {
    let place = place();
    let manifest = export(&place.options("out"), &mut ()).expect("an export");
    assert_eq!((manifest.variant.name.as_str(), manifest.cache_at_branch), ("skip-dit", 4));
    draw_as_references(&place.path("out"), "skip_dit", "pictures.json", 7);
}

#[test]
fn pictures_of_the_trained_model_equal_the_references() {
    let place = tempfile::tempdir().expect("a folder");
    let out = place.path().join("out");
    let options = Options {
        base: Some(emoji::models().join("badges")),
        ..Options::new(emoji::models().join("emoji-classes"), &out)
    };
    let manifest = export(&options, &mut ()).expect("an export");
    let found = (manifest.variant.name.as_str(), manifest.cache_at_branch);
    assert_eq!(found, ("emoji-classes", 1));
    let artifacts = Artifacts::open(&out).expect("a manifest");
    assert_eq!(artifacts.classes.expect("classes").names()[0], "koala");
    draw_as_references(&out, "skip_dit", "trained.json", 3);
}

#[test]
fn steps_refresh_as_the_authors_table_says() {
    let place = place();
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    let text = fs::read_to_string(reference("skip_dit", "refresh.json")).expect("the references");
    let table: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(table.len(), 12);
    for (name, gaps) in table {
        let (spacing, steps) = name.split_once(' ').expect("a spacing and steps");
        let sampler = if spacing == "leading" { SamplerKind::Ddim } else { SamplerKind::Ddpm };
        for (gap, bits) in (2..).zip(gaps) {
            let steps = steps.parse().expect("a count");
            let cache_policy: CachePolicy = format!("N{gap}").parse().expect("a policy");
            let request = Request {
                steps,
                sampler,
                spacing: spacing.parse().expect("a spacing"),
                cache_policy,
                ..Request::new(&artifacts.manifest, "0").expect("the defaults are right")
            };
            let request = request.check(&artifacts).expect("a good request");
            let found = refreshed(request.planned().expect("a plan"));
            let expected: Vec<usize> = (0..steps).filter(|&i| bit(&bits, i)).collect();
            assert_eq!(found, expected, "{name} N{gap}");
        }
    }
}

/// Bit `i`, from the lowest, of a hexadecimal number of any length.
fn bit(hexadecimal: &str, i: usize) -> bool {
    let digit = hexadecimal.chars().rev().nth(i / 4).and_then(|digit| digit.to_digit(16));
    digit.is_some_and(|digit| digit >> (i % 4) & 1 == 1)
}

#[test]
fn what_a_model_of_classes_cannot_draw_is_refused_by_field() {
    let place = place();
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    let request = || Request::new(&artifacts.manifest, "207").expect("the defaults are right");
    for class in ["207", " 0 ", "999", "golden retriever", "Golden Retriever"] {
        let request = Request { prompt: class.into(), ..request() };
        request.check(&artifacts).expect("a class");
    }
    for (request, field, expected) in [
        (
            Request { prompt: "a cat".into(), ..request() },
            "prompt",
            "a number, 0 to 999, or a name, such as \"tench\" (",
        ),
        (Request { prompt: "1000".into(), ..request() }, "prompt", "expected a number, 0 to 999"),
        (Request { negative_prompt: "-1".into(), ..request() }, "negative_prompt", "no class"),
        (Request { width: 128, ..request() }, "width", "64x64 only"),
        (Request { pag_scale: 3.0, ..request() }, "pag_scale", "no layers to perturb"),
    ] {
        let error = request.check(&artifacts).expect_err(field).to_string();
        assert!(error.contains(field) && error.contains(expected), "{field}: {error}");
    }
}

#[test]
fn the_names_of_classes_beside_a_checkpoint_are_those_of_its_export() {
    let place = place();
    let file = place.path("checkpoint/classes.txt");
    let mut names: Vec<String> = (0..1000).map(|i| format!("Klasse {i}, Nummer {i}")).collect();
    fs::write(&file, names.join("\n")).expect("it is written");
    export(&place.options("out"), &mut ()).expect("an export");
    let artifacts = Artifacts::open(&place.path("out")).expect("a manifest");
    assert_eq!(artifacts.classes.as_ref().expect("classes").names()[999], "Klasse 999");
    for (class, there) in [("klasse 7", true), ("Nummer 7", true), ("golden retriever", false)] {
        let request = Request::new(&artifacts.manifest, class).expect("the defaults are right");
        assert_eq!(request.check(&artifacts).is_ok(), there, "{class}");
    }
    names[4] = "cats, ".to_string();
    let two = "one\ntwo".to_string();
    for (text, expected) in [
        (two, "classes.txt: it names 2 classes; expected 1000"),
        (names.join("\n"), "classes.txt: class 4: `cats, ` has a name that is none"),
    ] {
        fs::write(&file, text).expect("it is written");
        let error = error_chain(&export(&place.options("none"), &mut ()).expect_err("no names"));
        assert!(error.contains(expected) && !place.path("none").exists(), "{error}");
    }
    fs::write(place.path("out/classes.txt"), "another").expect("it is written");
    let error = Artifacts::open(&place.path("out")).err().expect("other names").to_string();
    assert!(error.contains("classes.txt") && error.contains("was changed"), "{error}");
}
