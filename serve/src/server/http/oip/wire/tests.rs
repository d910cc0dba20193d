//! Requests of several clients, as they write them.

use axum::http::HeaderValue;

use super::*;

const CAT: &str = "蓝色背景上的猫";

fn read(body: &Value) -> Result<InferRequest, ApiError> {
    InferRequest::read(&HeaderMap::new(), body.to_string().as_bytes())
}

fn with_bytes(body: &Value, bytes: &[u8]) -> Result<InferRequest, ApiError> {
    let json = body.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(JSON_LENGTH, HeaderValue::from(json.len()));
    InferRequest::read(&headers, &[json.as_bytes(), bytes].concat())
}

fn tensor(name: &str, datatype: &str, data: Value) -> Value {
    json!({ "name": name, "shape": [1], "datatype": datatype, "data": [data] })
}

/// What the input is read as, or why not.
fn one(input: &Value) -> Result<Value, String> {
    let read = read(&json!({ "inputs": [input] })).map_err(|error| error.message)?;
    Ok(read.inputs[0].1.clone())
}

fn refusal(body: &Value) -> String {
    read(body).expect_err("it is refused").message
}

#[test]
fn numbers_of_any_width_are_taken_where_they_fit() {
    let seven: [(&str, &[u8]); 12] = [
        ("INT8", &7i8.to_le_bytes()),
        ("UINT8", &7u8.to_le_bytes()),
        ("INT16", &7i16.to_le_bytes()),
        ("UINT16", &7u16.to_le_bytes()),
        ("INT32", &7i32.to_le_bytes()),
        ("UINT32", &7u32.to_le_bytes()),
        ("INT64", &7i64.to_le_bytes()),
        ("UINT64", &7u64.to_le_bytes()),
        ("FP16", &half::f16::from_f32(7.0).to_le_bytes()),
        ("BF16", &half::bf16::from_f32(7.0).to_le_bytes()),
        ("FP32", &7f32.to_le_bytes()),
        ("FP64", &7f64.to_le_bytes()),
    ];
    for (datatype, bytes) in seven {
        for name in ["seed", "steps", "guidance"] {
            for value in [json!(7), json!(7.0)] {
                let read = one(&tensor(name, datatype, value)).expect(datatype);
                assert_eq!(read.as_f64(), Some(7.0), "{name} {datatype}");
                assert!(name == "guidance" || read.is_u64(), "{name} {datatype}: {read}");
            }
            let raw = json!({ "name": name, "shape": [1], "datatype": datatype,
                "parameters": { "binary_data_size": bytes.len() } });
            let read = with_bytes(&json!({ "inputs": [raw] }), bytes).expect(datatype);
            assert_eq!(read.inputs[0].1.as_f64(), Some(7.0), "{name} {datatype} as bytes");
        }
    }
    assert_eq!(one(&tensor("seed", "UINT64", json!(u64::MAX))), Ok(json!(u64::MAX)), "not rounded");
    assert_eq!(one(&tensor("guidance", "FP64", json!(3.3))), Ok(json!(3.3)));
}

#[test]
fn what_does_not_fit_is_refused_by_the_inputs_name() {
    let cases = [
        (tensor("steps", "INT8", json!(300)), "the input steps: its data is not one INT8"),
        (tensor("steps", "UINT16", json!(-1)), "the input steps: its data is not one UINT16"),
        (tensor("steps", "INT32", json!(4.5)), "the input steps: its data is not one INT32"),
        (tensor("steps", "FP64", json!(4.5)), "the input steps: expected a whole number"),
        (tensor("steps", "INT32", json!("4")), "the input steps: its data is not one INT32"),
        (tensor("steps", "INT32", json!(true)), "the input steps: its data is not one INT32"),
        (tensor("steps", "INT32", json!([])), "the input steps: its data is not one INT32"),
        (tensor("steps", "INT32", json!([1, 2])), "the input steps: its data is not one INT32"),
        (tensor("prompt", "BYTES", json!(7)), "the input prompt: its data is not one BYTES"),
        (
            tensor("steps", "BOOL", json!(true)),
            "the input steps: its datatype is \"BOOL\"; expected INT32 or another number",
        ),
        (
            tensor("steps", "int32", json!(4)),
            "the input steps: its datatype is \"int32\"; expected INT32 or another number",
        ),
        (
            tensor("prompt", "INT64", json!(7)),
            "the input prompt: its datatype is \"INT64\"; expected BYTES",
        ),
        (
            json!({ "name": "n", "shape": [2], "datatype": "INT32", "data": [1, 2] }),
            "the input n: its shape is [2]; expected [1], for one element",
        ),
        (
            json!({ "name": "n", "shape": "1", "datatype": "INT32", "data": [1] }),
            "the input n: shape: invalid type: string \"1\", expected a sequence",
        ),
        (
            json!({ "name": "n", "shape": [1], "datatype": "INT32", "dat": [1] }),
            "the input n: dat: unknown field dat",
        ),
        (json!({ "shape": [1] }), "the input number 1: missing field name"),
        (json!(7), "the input number 1: expected an object"),
        (json!(["n", [1], "INT32", null, [1]]), "the input number 1: expected an object"),
        (
            json!({ "name": "n", "shape": [-1], "datatype": "INT32", "data": [1] }),
            "the input n: shape[0]: invalid value: integer -1, expected an integer, 0 or more",
        ),
        (
            json!({ "name": "n", "shape": [1], "datatype": "INT32" }),
            "the input n: give either data or binary_data_size",
        ),
    ];
    for (input, words) in cases {
        let told = one(&input).expect_err("it is refused");
        assert!(told.starts_with(words), "{told}");
    }
    let infinite = json!({ "name": "guidance", "shape": [1], "datatype": "FP64",
        "parameters": { "binary_data_size": 8 } });
    for bytes in [f64::INFINITY.to_le_bytes(), f64::NAN.to_le_bytes()] {
        let told = with_bytes(&json!({ "inputs": [infinite] }), &bytes).expect_err("refused");
        assert_eq!(told.message, "the input guidance: its data is not one FP64");
        assert_eq!(told.param.as_deref(), Some("guidance"));
    }
}

#[test]
fn an_output_is_answered_once() {
    let prompt = tensor("prompt", "BYTES", json!(CAT));
    let ask = |outputs: Vec<Value>| read(&json!({ "inputs": [prompt], "outputs": outputs }));
    let all = ["image", "seed", "core_runs"].map(|name| json!({ "name": name }));
    assert_eq!(ask(all.to_vec()).expect("each once").outputs.len(), 3);
    assert_eq!(ask(vec![]).expect("all").outputs.len(), 3);
    for count in [2, 14_000] {
        let image = json!({ "name": "image", "parameters": { "binary_data": true } });
        let told = ask(vec![image; count]).expect_err("refused");
        assert_eq!(told.message, "the output image is asked for twice");
        assert_eq!(told.param.as_deref(), Some("outputs"));
    }
    let told = ask(vec![all[1].clone(), all[0].clone(), all[1].clone()]).expect_err("refused");
    assert_eq!(told.message, "the output seed is asked for twice");
}

#[test]
fn parameters_of_other_clients_are_passed_over() {
    // MLServer's client, which also writes what is absent as null.
    let mlserver = json!({
        "id": null, "model_name": "emoji", "model_version": null,
        "parameters": { "content_type": "str", "headers": { "x": "y" } },
        "inputs": [{ "name": "prompt", "shape": [1, 1], "datatype": "BYTES",
            "parameters": { "content_type": "str" }, "data": [CAT] }],
        "outputs": null,
    });
    assert_eq!(read(&mlserver).expect("taken").inputs, [("prompt", json!(CAT))]);
    // Triton's, with what its `infer` can be given.
    let triton = json!({
        "id": "7",
        "parameters": { "sequence_id": 3, "sequence_start": true, "priority": 1, "timeout": 10,
            "triton_enable_empty_final_response": false, "binary_data_output": true },
        "inputs": [{ "name": "prompt", "shape": [1], "datatype": "BYTES",
            "parameters": { "x": null, "content_type": null }, "data": [[CAT]] }],
        "outputs": [{ "name": "image", "parameters": { "quality": "best" } },
            { "name": "seed", "parameters": { "binary_data": false } }],
    });
    let read = read(&triton).expect("taken");
    assert_eq!(read.id.as_deref(), Some("7"));
    assert_eq!(read.outputs.iter().map(|wanted| wanted.binary).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn slips_and_what_is_not_built_are_told() {
    let prompt = tensor("prompt", "BYTES", json!(CAT));
    let request = |parameters: Value| json!({ "inputs": [prompt], "parameters": parameters });
    let output = |parameters: Value| json!({ "inputs": [prompt], "outputs": [{ "name": "image", "parameters": parameters }] });
    let input = |parameters: Value| {
        let mut prompt = prompt.clone();
        prompt["parameters"] = parameters;
        json!({ "inputs": [prompt] })
    };
    let cases = [
        (
            request(json!({ "binary_data_ouput": true })),
            "the request: binary_data_ouput: unknown; do you mean binary_data_output?",
        ),
        (
            request(json!({ "binary_data": true })),
            "the request: binary_data: it is a parameter of an output",
        ),
        (
            request(json!({ "steps": 4 })),
            "the request: steps is an input, not a parameter: send its tensor",
        ),
        (
            request(json!({ "binary_data_output": "yes" })),
            "the request: binary_data_output: expected true or false",
        ),
        (request(json!([])), "the request: parameters: invalid type: sequence"),
        (
            output(json!({ "Binary_data": true })),
            "the output image: Binary_data: unknown; do you mean binary_data?",
        ),
        (
            output(json!({ "classification": 3 })),
            "the output image: classification: not built here: omit it",
        ),
        (
            input(json!({ "binary_data_sise": 4 })),
            "the input prompt: binary_data_sise: unknown; do you mean binary_data_size?",
        ),
        (
            input(json!({ "shared_memory_region": "x" })),
            "the input prompt: shared_memory_region: not built here: omit it",
        ),
        (
            input(json!({ "content_type": "base64" })),
            "the input prompt: content_type: base64 is not decoded: send the text itself",
        ),
        (
            input(json!({ "binary_data_size": -1 })),
            "the input prompt: binary_data_size: expected an integer, 0 or more",
        ),
    ];
    for (body, words) in cases {
        let told = refusal(&body);
        assert!(told.starts_with(words), "{told}");
    }
    let unknown = json!({ "inputs": [prompt], "output": [] });
    assert!(refusal(&unknown).starts_with("the request: output: unknown field output"));
    assert_eq!(refusal(&json!([])), "the request: expected an object");
}

#[test]
fn bytes_are_those_that_the_inputs_claim() {
    let text = [&(CAT.len() as u32).to_le_bytes(), CAT.as_bytes()].concat();
    let ask = |size: usize, bytes: &[u8]| {
        let input = json!({ "name": "prompt", "shape": [1, 1, 1], "datatype": "BYTES",
            "parameters": { "binary_data_size": size, "content_type": "str" } });
        with_bytes(&json!({ "inputs": [input] }), bytes).map_err(|error| error.message)
    };
    assert_eq!(ask(text.len(), &text).expect("taken").inputs, [("prompt", json!(CAT))]);
    let short = "the input prompt: fewer bytes than its binary_data_size follow the JSON";
    let wrong = "the input prompt: its data is not one BYTES";
    let twice = [&text[..], &text].concat();
    for (size, bytes, words) in [
        (text.len() + 1, &text[..], short),
        (usize::MAX, &text, short),
        (text.len() - 1, &text[..text.len() - 1], wrong),
        (3, &text[..3], wrong),
        (twice.len(), &twice, wrong),
        (text.len(), &twice, "there are more bytes after the JSON than its inputs claim"),
        (5, &[1, 0, 0, 0, 0xff], wrong),
    ] {
        assert_eq!(ask(size, bytes).expect_err("refused"), words);
    }
}
