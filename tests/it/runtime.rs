//! Both engines on small graphs (tests/reference/make_runtime.py). ONNX Runtime must be there: run
//! scripts/setup-ort.

use std::error::Error;
use std::path::{Path, PathBuf};

use hydit::runtime::{
    Backend, BackendChoice, DType, Provider, RuntimeError, RuntimeOptions, Session, Value,
};
use hydit::util::error_chain;
use hydit_graphs::{Graph, Precision};

fn open(backend: BackendChoice) -> Backend {
    let options = RuntimeOptions { backend, ..Default::default() };
    Backend::open(&options).unwrap_or_else(|error| panic!("{backend}: {error}"))
}

/// Each engine in turn.
fn backends() -> [Backend; 2] {
    [open(BackendChoice::Ort), open(BackendChoice::Tract)]
}

fn graph(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/runtime").join(name)
}

fn load(backend: &Backend, name: &str) -> Session {
    backend.load(&graph(name)).unwrap_or_else(|error| panic!("{}: {error}", backend.describe()))
}

fn floats(value: &Value) -> Vec<f32> {
    value.read_f32().expect("a readable tensor").into_owned()
}

fn message(result: Result<Vec<Value>, RuntimeError>) -> String {
    result.expect_err("a refusal").to_string()
}

/// Values between -1 and 1 that repeat with no short period.
fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7).sin()).collect()
}

/// `x w + b + shift` of affine.onnx.
fn affine(x: &[f32], shift: [f32; 2]) -> Vec<f32> {
    let rows = x.chunks(3).flat_map(|r| {
        [
            r[0] + 3.0 * r[1] + 5.0 * r[2] + 0.5 + shift[0],
            2.0 * r[0] + 4.0 * r[1] + 6.0 * r[2] - 0.5 + shift[1],
        ]
    });
    rows.collect()
}

/// Self attention of attention.onnx for one sequence: two heads of four channels.
fn attention(x: &[f32], tokens: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for head in 0..2 {
        let row = |t: usize| &x[t * 8 + head * 4..][..4];
        for t in 0..tokens {
            let score = |s: usize| row(t).iter().zip(row(s)).map(|(a, b)| a * b).sum::<f32>().exp();
            let total: f32 = (0..tokens).map(score).sum();
            for s in 0..tokens {
                for c in 0..4 {
                    y[t * 8 + head * 4 + c] += score(s) / total * row(s)[c];
                }
            }
        }
    }
    y
}

/// Sums of at most nine products of numbers below 1: a few roundings of f32, far below 1e-5.
fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5, "element {i}: {a} is not {b}");
    }
}

#[test]
fn backends_and_sessions_may_move_to_a_worker_thread() {
    fn movable<T: Send>() {}
    movable::<Backend>();
    movable::<Session>();
    movable::<Value>();
}

#[test]
fn the_engines_say_what_they_are() {
    let [ort, tract] = backends();
    let described = ort.describe();
    assert!(described.starts_with("ONNX Runtime 1."), "{described}");
    assert!(
        described.contains(", cpu provider (/") && described.contains("libonnxruntime"),
        "{described}"
    );
    assert!(
        tract.describe().starts_with("tract 0.") && tract.describe().ends_with("(embedded)"),
        "{}",
        tract.describe()
    );
    let auto = open(BackendChoice::Auto);
    assert!(auto.ort_provider().is_some(), "auto prefers ONNX Runtime");
    assert_eq!(auto.describe(), described);
    let (_, library) = described.split_once(" provider (").expect("the library's path");
    assert!(library.starts_with('/') && auto.name().starts_with("ONNX Runtime 1."), "{described}");
    assert_eq!([ort.provider(), tract.provider()], [Provider::Cpu; 2]);
}

#[test]
fn a_graph_tells_its_inputs_and_outputs() {
    for backend in backends() {
        let session = load(&backend, "affine.onnx");
        let told = |infos: &[hydit::runtime::TensorInfo]| {
            infos.iter().map(|info| format!("{} {info}", info.name)).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(session.inputs()), "x f32 [?, 3]; shift i64 [2]");
        assert_eq!(told(session.outputs()), "y f32 [?, 2]; twice f32 [?, 2]");
    }
}

#[test]
fn weights_outside_the_file_are_used_and_outputs_come_in_order() {
    for backend in backends() {
        let mut session = load(&backend, "affine.onnx");
        let x = wave(6);
        let shift = backend.tensor_i64(&[2], &[10, -20]).expect("a tensor");
        let given = backend.tensor_f32(&[2, 3], &x).expect("a tensor");
        // The order of the inputs does not matter.
        let outputs = session.run(&[("shift", &shift), ("x", &given)]).expect("a run");
        let expected = affine(&x, [10.0, -20.0]);
        assert_eq!(outputs[0].shape(), [2, 2]);
        assert_close(&floats(&outputs[0]), &expected);
        assert_close(&floats(&outputs[1]), &expected.iter().map(|y| 2.0 * y).collect::<Vec<_>>());
    }
}

#[test]
fn a_refilled_input_is_seen_by_the_next_run_and_a_kept_output_stays() {
    for backend in backends() {
        let mut session = load(&backend, "affine.onnx");
        let shift = backend.tensor_i64(&[2], &[0, 0]).expect("a tensor");
        let mut x = backend.tensor_f32(&[1, 3], &[1.0, 2.0, 3.0]).expect("a tensor");
        let first = session.run(&[("x", &x), ("shift", &shift)]).expect("a run");
        x.write_f32(&[4.0, 5.0, 6.0]).expect("a refill");
        let second = session.run(&[("x", &x), ("shift", &shift)]).expect("a run");
        assert_close(&floats(&first[0]), &affine(&[1.0, 2.0, 3.0], [0.0; 2]));
        assert_close(&floats(&second[0]), &affine(&[4.0, 5.0, 6.0], [0.0; 2]));
        drop((session, shift));
        assert_close(&floats(&second[0]), &affine(&[4.0, 5.0, 6.0], [0.0; 2]));
    }
}

#[test]
fn symbolic_axes_take_any_size_and_an_output_is_an_input_of_another_graph() {
    for backend in backends() {
        let (mut first, mut second) =
            (load(&backend, "attention.onnx"), load(&backend, "attention.onnx"));
        for (batch, tokens) in [(1, 3), (2, 5), (1, 1), (1, 3)] {
            let x = wave(batch * tokens * 8);
            let given = backend.tensor_f32(&[batch, tokens, 8], &x).expect("a tensor");
            let between = first.run(&[("x", &given)]).expect("a run");
            let last = second.run(&[("x", &between[0])]).expect("a run");
            assert_eq!(last[0].shape(), [batch, tokens, 8]);
            let both = |x: &[f32]| attention(&attention(x, tokens), tokens);
            let expected: Vec<f32> = x.chunks(tokens * 8).flat_map(both).collect();
            assert_close(&floats(&last[0]), &expected);
        }
    }
}

#[test]
fn fp16_graphs_run_and_are_read_as_f32() {
    for backend in backends() {
        let mut session = load(&backend, "half.onnx");
        assert_eq!(session.inputs()[0].dtype, DType::F16);
        let mut x = backend.tensor_f16(&[1, 4], &[0.0; 4]).expect("a tensor");
        // All are exact in f16, and so are their doubles.
        x.write_f32(&[1.0, -0.5, 2.25, 1000.0]).expect("a refill");
        let outputs = session.run(&[("x", &x)]).expect("a run");
        assert_eq!(outputs[0].dtype(), DType::F16);
        assert_eq!(floats(&outputs[0]), [2.0, -1.0, 4.5, 2000.0]);
    }
}

#[test]
fn bf16_passes_through_onnx_runtime_and_is_read_as_f32() {
    let [ort, tract] = backends();
    let refused = tract.tensor_bf16(&[1], &[0.0]).expect_err("a refusal");
    let refused = refused.source().expect("the reason").to_string();
    assert!(refused.contains("tract has no bf16"), "{refused}");

    // The one thing the CPU provider does with bf16: changing its type.
    let graph = Graph::new("casts", Precision::Bf16);
    let x = graph.input("x", hydit_graphs::DType::BF16, &[4.into()]);
    graph.output("wide", x.cast(hydit_graphs::DType::F32));
    graph.output("back", x.cast(hydit_graphs::DType::F32).cast(hydit_graphs::DType::BF16));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("casts.onnx");
    std::fs::write(&path, graph.finish().encode()).expect("a written file");
    let mut session = ort.load(&path).expect("a graph");
    assert_eq!(session.inputs()[0].dtype, DType::BF16);

    assert!(ort.tensor_bf16(&[3], &[0.0; 4]).is_err(), "four elements in three places");
    // The last is rounded to 8 bits, halfway between 258 and 260.
    let x = ort.tensor_bf16(&[4], &[1.0, -0.5, 3e38, 259.0]).expect("a tensor");
    assert_eq!((x.dtype(), floats(&x)[3]), (DType::BF16, 260.0));
    let outputs = session.run(&[("x", &x)]).expect("a run");
    assert_eq!((outputs[0].dtype(), outputs[1].dtype()), (DType::F32, DType::BF16));
    assert_eq!(floats(&outputs[0]), floats(&x));
    assert_eq!(floats(&outputs[1]), floats(&x));
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let [ort, tract] = backends();
    for (backend, other) in [(&ort, &tract), (&tract, &ort)] {
        let mut session = load(backend, "affine.onnx");
        let f32 = |shape: &[usize]| {
            backend.tensor_f32(shape, &vec![0.0; shape.iter().product()]).expect("a tensor")
        };
        let (x, shift) = (f32(&[1, 3]), backend.tensor_i64(&[2], &[0, 0]).expect("a tensor"));

        let missing = message(session.run(&[("x", &x)]));
        assert!(missing.contains("affine.onnx needs the input `shift` (i64 [2])"), "{missing}");
        let unknown = message(session.run(&[("x", &x), ("shift", &shift), ("z", &x)]));
        assert!(unknown.contains("affine.onnx has no input `z`; it has x, shift"), "{unknown}");
        let twice = message(session.run(&[("x", &x), ("shift", &shift), ("x", &x)]));
        assert!(twice.contains("the input `x` of") && twice.contains("twice"), "{twice}");
        let dtype = message(session.run(&[("x", &x), ("shift", &f32(&[2]))]));
        assert!(dtype.contains("takes i64 [2], and f32 [2] was given"), "{dtype}");
        for shape in [&[1, 4][..], &[3], &[1, 1, 3]] {
            let wrong = message(session.run(&[("x", &f32(shape)), ("shift", &shift)]));
            assert!(
                wrong.contains(&format!("takes f32 [?, 3], and f32 {shape:?} was given")),
                "{wrong}"
            );
        }
        let foreign = other.tensor_f32(&[1, 3], &[0.0; 3]).expect("a tensor");
        let foreign = message(session.run(&[("x", &foreign), ("shift", &shift)]));
        assert!(foreign.contains("is a tensor of another engine"), "{foreign}");

        let host = session.outputs_to_host(&["y", "q"]).expect_err("a refusal").to_string();
        assert!(host.contains("no output `q`; it has y, twice"), "{host}");
        session.run(&[("x", &x), ("shift", &shift)]).expect("a run after refusals");
    }
}

#[test]
fn data_that_does_not_fit_a_tensor_is_refused() {
    for backend in backends() {
        let short = backend.tensor_f32(&[2, 3], &[0.0; 5]).expect_err("a refusal").to_string();
        assert!(short.contains("shape [2, 3] holds 6 elements, and 5 were given"), "{short}");
        assert!(backend.tensor_i64(&[usize::MAX, 2], &[0; 4]).is_err());
        let mut x = backend.tensor_f32(&[3], &[0.0; 3]).expect("a tensor");
        assert!(matches!(
            x.write_f32(&[0.0; 4]),
            Err(RuntimeError::Length { expected: 3, found: 4, .. })
        ));
        let ids = backend.tensor_i64(&[1], &[7]).expect("a tensor");
        let read = ids.read_f32().expect_err("a refusal").to_string();
        assert!(read.contains("a i64 tensor cannot be read as f32"), "{read}");
    }
}

#[test]
fn files_that_do_not_load_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("text.onnx"), "not a graph").expect("a written file");
    std::fs::copy(graph("affine.onnx"), at("affine.onnx")).expect("a copied file");
    for backend in backends() {
        for (name, cause) in
            [("none.onnx", ""), ("text.onnx", ""), ("affine.onnx", "affine.onnx.data")]
        {
            let error = error_chain(&backend.load(&at(name)).err().expect("a refusal"));
            assert!(error.contains(name) && error.contains("cannot load"), "{error}");
            assert!(error.contains(cause), "the cause is missing: {error}");
        }
    }
}

#[test]
fn a_second_backend_may_have_another_number_of_threads() {
    let options = |threads| RuntimeOptions {
        backend: BackendChoice::Ort,
        threads: Some(threads),
        ..Default::default()
    };
    for threads in [1, 2, 3] {
        let backend = Backend::open(&options(threads)).expect("ONNX Runtime");
        let x = backend.tensor_f32(&[1, 3, 8], &wave(24)).expect("a tensor");
        let outputs = load(&backend, "attention.onnx").run(&[("x", &x)]).expect("a run");
        assert_close(&floats(&outputs[0]), &attention(&wave(24), 3));
    }
}
