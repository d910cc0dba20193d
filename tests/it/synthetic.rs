//! The synthetic weights and inputs are those of `tests/reference/synthetic.py`, bit for bit.

use hydit_export::synth::rule::{Spread, bits, fnv1a64, state};
use serde_json::Value;

use crate::common::synthetic;
use crate::common::tensor::Data;

fn reference() -> Value {
    serde_json::from_str(include_str!("../reference/synthetic.json")).expect("JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().expect("a list")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().expect("a whole number")
}

#[test]
fn random_bits_are_those_of_the_reference() {
    for entry in list(&reference(), "z") {
        let z = bits(fnv1a64(text(entry, "name")), number(entry, "index"));
        assert_eq!(format!("{z:016x}"), text(entry, "z"), "{entry}");
    }
}

#[test]
fn weights_are_those_of_the_reference() {
    for entry in list(&reference(), "weights") {
        let name = text(entry, "name");
        let dims: Vec<_> =
            list(entry, "shape").iter().map(|n| n.as_u64().expect("a size") as usize).collect();
        assert_eq!(format!("{:016x}", state(name, 0)), text(entry, "state"), "{name}");
        let spread = Spread::of_weight(name, &dims);
        assert_eq!(Some(spread.scale), entry["scale"].as_f64(), "{name}");
        assert_eq!(Some(spread.offset), entry["offset"].as_f64(), "{name}");
        for value in list(entry, "values") {
            let ours = spread.value(state(name, 0), number(value, "index"));
            assert_eq!(
                format!("{:08x}", ours.to_bits()),
                text(value, "f32_bits"),
                "{name} {value}"
            );
        }
    }
}

#[test]
fn inputs_are_those_of_the_reference() {
    let reference = reference();
    let latents = synthetic::floats("latents", &[2, 4, 4, 4], 2.0);
    for value in list(&reference["input"], "values") {
        let ours = latents.floats()[number(value, "index") as usize];
        assert_eq!(Some(f64::from(ours)), value["value"].as_f64(), "{value}");
    }
    let ids = synthetic::integers("input_ids", &[8], 50);
    let theirs = list(&reference["integers"], "values").iter().map(|v| v.as_i64().expect("an id"));
    assert_eq!(ids.data, Data::I64(theirs.collect()));
}

#[test]
fn another_seed_gives_other_weights() {
    let spread = Spread::of_weight("blocks.0.attn1.to_q.weight", &[16, 16]);
    let value = |seed| spread.value(state("blocks.0.attn1.to_q.weight", seed), 0);
    assert_ne!(value(0), value(1));
}
