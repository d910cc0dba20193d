//! ControlNets: every graph and whole pictures against diffusers, and what a request with them does.
//! `tests/reference/make_control.py` made the references.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit::control::Preprocess;
use hydit::eval::compare::psnr;
use hydit::image::{Decoded, Image, canny, read_png};
use hydit::pipeline::batch::can_batch;
use hydit::pipeline::cost::StepCosts;
use hydit::request::{Parameters, spacing_of};
use hydit::runtime::BackendChoice;
use hydit::timing::Stage;
use hydit::{Control, Generated, Pipeline, Request};
use hydit_export::Component;
use hydit_graphs::config::HunyuanDitConfig;
use hydit_graphs::control::{self, Part, before_name, control_name, count};
use hydit_graphs::{GraphDef, GraphOptions, Precision, hunyuan_dit};
use hydit_testing::emoji;
use serde::Deserialize;

use crate::common::golden::{self, Golden};
use crate::common::graphs::{Exporter, engines, load, open, run};
use crate::common::tensor::{Tensor, Tensors, distance};
use crate::common::transformer::branches;
use crate::common::worst::Worst;

/// As for the other graphs: see `parity.rs`.
const TOLERANCE: f64 = 1e-5;
/// As for the other pictures: below what rounding gives, above what a mistake gives.
const PSNR: f64 = 55.0;
/// The weight in the goldens.
const SCALE: f32 = 0.8;

pub fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/control").join(name)
}

pub fn image(name: &str) -> Decoded {
    Decoded::read(&reference(name)).expect("an image")
}

/// The net of a golden, with weights of seed 1.
fn net(cfg: &HunyuanDitConfig, n: usize) -> Vec<GraphDef> {
    let mut graphs = vec![
        control::conditioner("net", cfg, Precision::Fp32),
        control::encoder("net", cfg, n, Precision::Fp32),
    ];
    if Part::Core.is_in(cfg, n) {
        graphs.push(control::core("net", cfg, n, Precision::Fp32));
    }
    graphs
}

/// `values` with everything that a net's graphs read beside latents and prompt.
fn feed_of_net(golden: &Golden, cfg: &HunyuanDitConfig) -> Tensors {
    let mut feed = golden.inputs.clone();
    let rows = feed["latents"].shape[0];
    feed.insert("conditioning_scale".to_string(), Tensor::f32(&[rows, 1, 1], vec![SCALE; rows]));
    let zeros = Tensor::f32(&[rows, 1, cfg.hidden_size], vec![0.0; rows * cfg.hidden_size]);
    feed.extend((0..count(cfg)).map(|i| (before_name(i), zeros.clone())));
    feed
}

#[test]
fn every_graph_of_a_net_and_of_the_model_with_it_is_diffusers() {
    let mut worst = Worst::new("");
    for golden in golden::all("control", "depth") {
        let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
        let nets = Exporter::of_seed(Component::ControlNet, &net(&cfg, 1), 1);
        let version = GraphOptions { controls: true, ..Precision::Fp32.into() };
        let whole = [hunyuan_dit::conditioner(&cfg, version), hunyuan_dit::full(&cfg, version)];
        let model = Exporter::synthetic(Component::Transformer, &whole);
        for n in branches(&cfg) {
            let net = net(&cfg, n);
            let cut = [
                hunyuan_dit::conditioner(&cfg, version),
                hunyuan_dit::shallow_encoder(&cfg, n, version),
                hunyuan_dit::deep_core(&cfg, n, version),
                hunyuan_dit::shallow_decoder(&cfg, n, version),
            ];
            let nets = nets.write(&format!("net-{n}"), &net);
            let model = model.write(&format!("model-{n}"), &cut);
            for &engine in engines() {
                let backend = open(engine);
                let mut made = feed_of_net(&golden, &cfg);
                for graph in &net {
                    let ours = run(&backend, &mut load(&backend, &nets, graph), &made);
                    for (name, tensor) in &ours {
                        let Some(theirs) = golden.outputs.get(name) else { continue };
                        let error = distance(tensor, theirs);
                        let at = format!("{} cut at {n}, {engine}", golden.name);
                        assert!(error <= TOLERANCE, "{at}: `{name}` is {error:.1e} off");
                        worst.add(format!("{:24} {name:12} {engine}", graph.name), error, &at);
                    }
                    made.extend(ours);
                }
                let mut feed = golden.inputs.clone();
                let controls = (0..count(&cfg)).map(control_name);
                feed.extend(controls.map(|name| (name.clone(), made[&name].clone())));
                for graph in &cut {
                    let ours = run(&backend, &mut load(&backend, &model, graph), &feed);
                    feed.extend(ours);
                }
                let error = distance(&feed["noise_pred"], &golden.outputs["noise_pred"]);
                let at = format!("{} cut at {n}, {engine}", golden.name);
                assert!(error <= TOLERANCE, "{at}: the prediction is {error:.1e} off");
                worst.add(format!("{:24} noise_pred {engine}", "model"), error, &at);
            }
        }
    }
}

#[test]
fn a_net_adds_to_what_the_nets_before_it_made() {
    let golden = golden::read("control", "depth6");
    let cfg = HunyuanDitConfig::from_json(&golden.config).expect("a config");
    let graphs = net(&cfg, 1);
    let exporter = Exporter::synthetic(Component::ControlNet, &graphs);
    let nets = exporter.write("nets", &graphs);
    let backend = open(BackendChoice::Ort);
    let mut feed = feed_of_net(&golden, &cfg);
    let run_net = |feed: &Tensors| {
        let mut feed = feed.clone();
        for graph in &graphs {
            let ours = run(&backend, &mut load(&backend, &nets, graph), &feed);
            feed.extend(ours);
        }
        (0..count(&cfg)).map(|i| feed[&control_name(i)].clone()).collect::<Vec<_>>()
    };
    let once = run_net(&feed);
    feed.extend(once.iter().enumerate().map(|(i, sum)| (before_name(i), sum.clone())));
    for (once, twice) in once.iter().zip(run_net(&feed)) {
        assert!(distance(&twice, &once.map(|x| 2.0 * x)) < 1e-6);
    }
}

#[derive(Clone, Deserialize)]
pub struct Picture {
    files: Vec<String>,
    sampler: String,
    prompt: String,
    steps: usize,
    seeds: Vec<u64>,
    guidance_scale: f32,
    height: usize,
    width: usize,
    cache: Option<Cache>,
    controls: Vec<Asked>,
}

#[derive(Clone, Deserialize)]
pub struct Cache {
    gap: NonZeroU32,
    start: u32,
    close: u32,
    branch: usize,
}

#[derive(Clone, Deserialize)]
struct Asked {
    name: String,
    image: String,
    weight: f32,
    #[serde(default)]
    start: f64,
    end: Option<f64>,
}

impl Picture {
    pub fn all() -> BTreeMap<String, Picture> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
            #[serde(flatten)]
            picture: Picture,
        }
        let text = fs::read_to_string(reference("pictures.json")).expect("the references");
        let named: Vec<Named> = serde_json::from_str(&text).expect("the references are JSON");
        named.into_iter().map(|one| (one.name, one.picture)).collect()
    }

    pub fn request(&self, pipeline: &Pipeline) -> Request {
        let manifest = pipeline.manifest();
        let sampler = self.sampler.parse().expect("a sampler");
        let control = |asked: &Asked| Control {
            weight: asked.weight,
            start: asked.start,
            end: asked.end.unwrap_or(1.0),
            ..Control::new(
                &asked.name,
                &image(&asked.image),
                Preprocess::None,
                (self.width, self.height),
            )
        };
        Request {
            steps: self.steps,
            seed: self.seeds[0],
            num_images: self.seeds.len(),
            guidance_scale: self.guidance_scale,
            height: self.height,
            width: self.width,
            sampler,
            spacing: spacing_of(manifest, sampler),
            cache_policy: match self.cache {
                None => CachePolicy::off(),
                Some(Cache { gap, start, close, .. }) => CachePolicy::interval(gap, start, close),
            },
            controls: self.controls.iter().map(control).collect(),
            ..Request::new(manifest, &self.prompt).expect("the defaults are right")
        }
    }
}

pub fn draw(pipeline: &mut Pipeline, request: &Request) -> Generated {
    let checked = emoji::checked(pipeline, request);
    pipeline.generate(&checked, &mut emoji::ignore).expect("it draws")
}

pub fn near(one: &Image, other: &Image) -> f64 {
    psnr(one, other).expect("pictures of one size")
}

#[test]
fn pictures_with_nets_cached_or_not_equal_those_of_diffusers() {
    let pictures = Picture::all();
    assert!(pictures.len() >= 7 && pictures.values().any(|picture| picture.controls.len() == 2));
    let branches = [1, 2].map(emoji::controlled);
    let mut pipelines = branches.map(|path| emoji::pipeline(&path, BackendChoice::Ort));
    for (name, picture) in &pictures {
        let pipeline = &mut pipelines[picture.cache.as_ref().map_or(0, |cache| cache.branch - 1)];
        let request = picture.request(pipeline);
        let made = draw(pipeline, &request);
        let plain = draw(pipeline, &Request { controls: Vec::new(), ..request.clone() });
        for ((ours, plain), file) in made.images.iter().zip(&plain.images).zip(&picture.files) {
            let (theirs, _) = read_png(&reference(file)).expect("a reference picture");
            let (found, without) = (near(ours, &theirs), near(plain, &theirs));
            println!("{name}: {found:.1} dB, without its nets {without:.1} dB");
            assert!(found >= PSNR, "{file}: {found:.1} dB");
            assert!(without < PSNR - 10.0, "{file}: its nets do little, {without:.1} dB");
        }
    }
}

#[test]
fn the_embedded_engine_and_another_cut_draw_the_same() {
    let picture = &Picture::all()["dpmms-10-rocket-both"];
    let (theirs, _) = read_png(&reference(&picture.files[0])).expect("a reference picture");
    for (branch, engine) in [(1, BackendChoice::Tract), (2, BackendChoice::Ort)] {
        let mut pipeline = emoji::pipeline(&emoji::controlled(branch), engine);
        let request = picture.request(&pipeline);
        let found = near(&draw(&mut pipeline, &request).images[0], &theirs);
        assert!(found >= PSNR, "cut at {branch}, {engine}: {found:.1} dB");
    }
}

#[test]
fn without_a_net_an_export_with_nets_draws_as_one_without() {
    let mut with = emoji::pipeline(&emoji::controlled(1), BackendChoice::Ort);
    let mut plain = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    for policy in ["off", "N3"] {
        let cache_policy = policy.parse().expect("a policy");
        let request = Request { cache_policy, ..emoji::cat(plain.manifest(), 6) };
        let [ours, theirs] = [&mut with, &mut plain].map(|pipeline| draw(pipeline, &request));
        assert_eq!(ours.latents, theirs.latents, "{policy}");
        assert_eq!(ours.timings.calls(Stage::ControlNets), 0);
    }
}

#[test]
fn a_cached_step_runs_no_core_of_a_net_and_a_step_outside_its_share_nothing() {
    let mut pipeline = emoji::pipeline(&emoji::controlled(1), BackendChoice::Ort);
    let request = Picture::all()["dpmms-10-rocket-both"].request(&pipeline);
    let by = |policy: &str| Request {
        cache_policy: policy.parse().expect("a policy"),
        ..request.clone()
    };
    for policy in ["N5-1000-0", "N3-700-50+taylor1", "probe:0.3"] {
        let made = draw(&mut pipeline, &by(policy));
        let refreshes = made.timings.calls(Stage::Core);
        assert!((1..10).contains(&refreshes), "{policy}: {refreshes} refreshes");
        // Two nets: an encoder at each of 10 steps, a core at each refresh.
        assert_eq!(made.timings.calls(Stage::ControlNets), 2 * (10 + refreshes), "{policy}");
    }
    let cached = by("N5-1000-0");

    let mut part = cached.clone();
    (part.controls[0].start, part.controls[0].end) = (0.2, 0.7);
    part.controls.truncate(1);
    part.cache_policy = "off".parse().expect("a policy");
    let made = draw(&mut pipeline, &part);
    assert_eq!(made.timings.calls(Stage::ControlNets), 2 * 5);

    let costs = |request: &Request| StepCosts::of(pipeline.manifest(), request);
    let (both, none) = (costs(&cached), costs(&Request { controls: Vec::new(), ..cached.clone() }));
    assert!(both.cached > 1.2 * none.cached && both.full > 1.5 * none.full, "{both:?} {none:?}");
    assert!(costs(&part).full < both.full, "half the steps of one net");
}

#[test]
fn a_request_with_nets_is_drawn_alone_and_its_parameters_are_kept() {
    let artifacts = Artifacts::open(&emoji::controlled(1)).expect("an export");
    let pipeline = emoji::pipeline(&artifacts.path, BackendChoice::Ort);
    let with = Picture::all()["ddim-10-cat"].request(&pipeline);
    let plain = Request { controls: Vec::new(), ..with.clone() };
    let (manifest, backend) = (pipeline.manifest(), pipeline.backend());
    assert!(can_batch(manifest, backend, &plain, &plain));
    assert!(!can_batch(manifest, backend, &plain, &with));
    assert!(!can_batch(manifest, backend, &with, &with));

    let texts = with.parameters(&artifacts, 0, &[]).to_texts();
    assert!(texts[1].1.contains("ControlNet: edges:0.25"), "{}", texts[1].1);
    let known = Parameters::from_texts(&texts).expect("parameters").request;
    assert_eq!(known.controls[0].sha256, image("edges.png").sha256());
    let error = known.check(&artifacts).expect_err("its image is not in it").to_string();
    assert!(error.contains("controls: edges: only the hash of its image is known"), "{error}");
}

#[test]
fn what_cannot_be_drawn_is_refused_by_name() {
    let with = Artifacts::open(&emoji::controlled(1)).expect("an export");
    let plain = Artifacts::open(&emoji::artifacts()).expect("an export");
    let request = emoji::cat(&with.manifest, 10);
    let size = (request.width, request.height);
    let edges = Control::new("edges", &image("edges.png"), Preprocess::None, size);
    let told = |artifacts: &Artifacts, controls: Vec<Control>| {
        let request = Request { controls, ..request.clone() };
        let error = request.check(artifacts).expect_err("a refusal").to_string();
        assert!(error.starts_with("controls: ") && !error.contains('\n'), "{error}");
        error
    };
    for (control, words) in [
        (Control { name: "pose".to_string(), ..edges.clone() }, "there is edges, shade"),
        (Control { weight: 11.0, ..edges.clone() }, "edges: weight 11; expected 0 to 10"),
        (Control { weight: f32::NAN, ..edges.clone() }, "expected 0 to 10"),
        (Control { start: 0.6, end: 0.5, ..edges.clone() }, "the start below the end"),
        (Control { start: 0.93, ..edges.clone() }, "no step of 10 lies between 0.93 and 1"),
        (Control::new("edges", &image("edges.png"), Preprocess::None, (64, 64)), "of another size"),
    ] {
        let error = told(&with, vec![control]);
        assert!(error.contains(words), "{error}");
    }
    assert!(told(&plain, vec![edges.clone()]).contains("hydit-export --control NAME=PATH"));
    assert!(told(&with, vec![edges; 9]).contains("9 ControlNets; at most 8"));
}

#[test]
fn edges_are_those_of_opencv_to_the_pixel() {
    for name in ["emoji", "resized", "noise"] {
        let [photo, edges] =
            ["photo", "edges"].map(|what| image(&format!("canny-{name}-{what}.png")).on_white());
        let found = canny(&photo);
        let differ = found.rgb.iter().zip(&edges.rgb).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 0, "{name}: {differ} of {} values", edges.rgb.len());
    }
}
