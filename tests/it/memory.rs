//! What stays in memory, as the system says: of a model on a low-memory engine, and of the graphs of a
//! step that run in turn.

use std::collections::BTreeMap;

use hydit::artifacts::Artifacts;
use hydit::runtime::{Backend, BackendChoice, RuntimeOptions, Session, Value};
use hydit::{Pipeline, Request};
use hydit_export::synth::{Shape, Storage, checkpoint, model};
use hydit_graphs::Precision;
use hydit_testing::{emoji, process::alone};
use tempfile::TempDir;

/// Megabytes of this process that no file backs.
fn held() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a proc file system");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line of it");
    let kilobytes = line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok());
    kilobytes.expect("a number") / 1024.0
}

/// ONNX Runtime with one thread, so that where its tensors lie is the same in each test run.
fn engine(low_memory: bool) -> Backend {
    let options = RuntimeOptions {
        backend: BackendChoice::Ort,
        threads: Some(1),
        low_memory,
        ..RuntimeOptions::default()
    };
    Backend::open(&options).expect("scripts/setup-ort was run")
}

/// A model whose text encoders are most of it.
fn export() -> TempDir {
    let shape = Shape {
        depth: Some(4),
        heads: Some(2),
        head_dim: Some(16),
        small_text: true,
        ..Shape::default()
    };
    let mut config = model("hunyuan-dit-v1.2", &shape).expect("a model");
    // Matrices of 36 MiB: what is smaller than 32, malloc may keep for later when it is given back.
    (config.text_encoder_2.d_model, config.text_encoder_2.d_ff) = (1024, 9 * 1024);
    config.text_encoder_2.num_layers = 1;
    config.transformer.cross_attention_dim_t5 = config.text_encoder_2.d_model;
    let (made, out) = (tempfile::tempdir(), tempfile::tempdir());
    let (made, out) = (made.expect("a folder"), out.expect("a folder"));
    checkpoint(&config, &made.path().join("checkpoint"), &Storage::default()).expect("it is made");
    emoji::export(&made.path().join("checkpoint"), out.path(), 1, Precision::Fp32)
        .expect("it exports");
    out
}

/// What is held at the first step of two requests in turn.
fn at_first_step(folder: &TempDir, low_memory: bool) -> [f64; 2] {
    let mut pipeline =
        Pipeline::load(folder.path(), engine(low_memory)).expect("a fresh export loads");
    let request = Request::new(pipeline.manifest(), "a cat").expect("the defaults are right");
    let request = Request { height: 64, width: 64, steps: 1, ..request };
    [(); 2].map(|()| {
        let mut seen = 0.0;
        pipeline
            .generate(&emoji::checked(&pipeline, &request), &mut |_| seen = held())
            .expect("it draws");
        seen
    })
}

#[test]
fn the_text_encoders_are_gone_when_the_first_step_is_done() {
    alone(|| {
        let folder = export();
        let encoder = folder.path().join("text-encoder-2.onnx.data");
        let encoder = std::fs::metadata(encoder).expect("a data file").len() as f64 / 1048576.0;
        let low = at_first_step(&folder, true);
        let all = at_first_step(&folder, false);
        println!("encoder {encoder:.0} MiB; held at the first step {low:.0?} and {all:.0?} MiB");
        assert!(encoder > 100.0, "{encoder} MiB do not stand out");
        for (low, all) in low.into_iter().zip(all) {
            assert!(all - low > encoder / 2.0, "{low:.0} MiB, not well below {all:.0} MiB");
        }
    });
}

/// What a picture of 1024x1024 needs, some 600 MiB, is given back when it is drawn. Half of it would stay
/// in memory beside the output of the image decoder.
#[test]
fn a_large_picture_leaves_little_in_memory() {
    alone(|| {
        let backend = engine(false);
        let mut pipeline = Pipeline::load(&emoji::artifacts(), backend).expect("it loads");
        let [small, large] = [64, 1024].map(|side| {
            let request =
                Request::new(pipeline.manifest(), "a cat").expect("the defaults are right");
            let request = Request { height: side, width: side, steps: 1, ..request };
            let request = emoji::checked(&pipeline, &request);
            drop(pipeline.generate(&request, &mut |_| ()).expect("it draws"));
            held()
        });
        println!("{small:.0}, then {large:.0} MiB");
        assert!(large - small < 160.0, "{large:.0} MiB, {small:.0} before it");
    });
}

/// How often the graphs of a step run in turn while what they hold is watched.
const ALTERNATIONS: usize = 200;
/// Alternations before that: the arena has its size after one, but a place of it counts from when it is first
/// written to, of which some 0.2 MiB come as late as the 500th.
const WARM: usize = 800;

/// Values by name.
type Values = BTreeMap<String, Value>;

/// What the graphs of a step read that none of them makes, two rows of a picture of `height` and
/// `width`.
fn given(sessions: &[Session], backend: &Backend, [height, width]: [usize; 2]) -> Values {
    let made: Vec<_> = sessions.iter().flat_map(Session::outputs).map(|made| &made.name).collect();
    let declared = sessions.iter().flat_map(Session::inputs);
    let declared = declared.filter(|input| !made.contains(&&input.name));
    let value = |name: &str, dims: &[Option<usize>]| {
        let shape: Vec<usize> = match (name, dims) {
            ("latents", &[_, Some(channels), ..]) => vec![2, channels, height / 8, width / 8],
            ("cos" | "sin", &[.., Some(channels)]) => vec![height / 16, width / 16, channels],
            _ => dims.iter().map(|dim| dim.unwrap_or(2)).collect(),
        };
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32).sin()).collect();
        backend.tensor_f32(&shape, &numbers).expect("as many numbers")
    };
    declared.map(|input| (input.name.clone(), value(&input.name, &input.dims))).collect()
}

/// Runs `session` on those of `values` that it reads; its outputs take the place of older ones.
fn take_turn(session: &mut Session, values: &mut Values) {
    let names: Vec<String> = session.inputs().iter().map(|input| input.name.clone()).collect();
    let inputs: Vec<_> = names.iter().map(|name| (name.as_str(), &values[name])).collect();
    let made = session.run(&inputs).expect("it runs");
    let outputs = session.outputs().iter().map(|output| output.name.clone());
    values.extend(outputs.zip(made));
}

/// Megabytes of the outputs of `sessions` among `values`.
fn outputs(sessions: &[Session], values: &Values) -> f64 {
    let made = sessions.iter().flat_map(Session::outputs).map(|output| &values[&output.name]);
    let bytes = made.map(|value| value.shape().iter().product::<usize>() * size_of::<f32>());
    bytes.sum::<usize>() as f64 / 1048576.0
}

/// What the graph that runs second adds to what is held is a small part of what the first one, the same,
/// adds: it takes its memory from the arena that the first one left. With arenas of their own both add alike.
#[test]
fn a_graph_takes_its_memory_from_the_arena_that_others_left() {
    alone(|| {
        let backend = engine(false);
        let artifacts = Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let mut encoders =
            [(); 2].map(|()| [artifacts.load("shallow-encoder", &backend).expect("it loads")]);
        let mut values = encoders.each_ref().map(|graphs| given(graphs, &backend, [512, 512]));
        let adds = [0, 1].map(|which| {
            let before = held();
            take_turn(&mut encoders[which][0], &mut values[which]);
            held() - before
        });
        println!("{adds:.1?} MiB");
        assert!(adds[0] > 10.0, "{adds:?} MiB do not stand out");
        assert!(adds[1] < adds[0] / 4.0, "{adds:?} MiB: an arena each");
    });
}

/// The arena has its largest size once the graphs have run at each size, and later hands out what it has: two
/// hundred alternations more hold no more. The bound is what one of them makes. If each lost the smallest of
/// its tensors, of a kilobyte, it would be passed twice over, by any other thirty times.
#[test]
fn graphs_that_take_turns_do_not_hold_more_and_more() {
    alone(|| {
        let backend = engine(false);
        let artifacts = Artifacts::open(&emoji::artifacts()).expect("artifacts");
        let mut sessions = ["shallow-encoder", "deep-core", "shallow-decoder"]
            .map(|graph| artifacts.load(graph, &backend).expect("it loads"));
        let mut pictures = [[128, 128], [64, 96]].map(|size| given(&sessions, &backend, size));
        let mut warm = 0.0;
        for alternation in 0..WARM + ALTERNATIONS {
            for values in &mut pictures {
                let [encoder, core, decoder] = &mut sessions;
                take_turn(encoder, values);
                if alternation % 2 == 0 {
                    take_turn(core, values);
                }
                take_turn(decoder, values);
            }
            if alternation + 1 == WARM {
                warm = held();
            }
        }
        let (now, bound) = (held(), outputs(&sessions, &pictures[0]));
        println!("{warm:.2}, then {now:.2} MiB; bound {bound:.2}");
        assert!(now - warm < bound, "{now:.2} MiB, {warm:.2} after {WARM} alternations");
    });
}
