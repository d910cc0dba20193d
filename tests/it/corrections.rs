//! Corrections of forecasts by what the shallow encoder sees: their file, and pictures drawn with
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use hydit::artifacts::Artifacts;
use hydit::cache::{Correction, RANK, Schedule, Schedules};
use hydit::image::Image;
use hydit::pipeline::tables::{Numbers, Tabulator};
use hydit::runtime::BackendChoice;
use hydit::{Pipeline, Request};
use hydit_testing::emoji;

use crate::batch::together;

const STEPS: usize = 8;

/// The correction of a step of a model of width `hidden`: small numbers, neither equal nor all of the
/// same sign.
fn correction(hidden: usize, step: usize) -> Correction {
    let number = |i: usize| ((i * 7 + step) as f32).sin() / 16.0;
    let factor = |from: usize| (from..from + hidden * RANK).map(number).collect::<Vec<f32>>();
    Correction::new(&factor(0), &factor(1)).expect("of one width, and finite")
}

/// A calibration for `pipeline` with corrections of `steps`, whose refreshes weigh older outputs too,
/// written into `folder`.
fn write(pipeline: &Pipeline, steps: &[usize], folder: &Path) -> PathBuf {
    let hidden = hidden(pipeline);
    let schedule = Schedule {
        refresh: vec![0, 3, 6],
        forecast: [(3, vec![1.25, -0.25]), (4, vec![1.5, -0.5]), (6, vec![1.25, -0.5, 0.25])]
            .into(),
        corrections: steps.iter().map(|&step| (step, correction(hidden, step))).collect(),
        measured: None,
    };
    let manifest_sha256 = Some(pipeline.artifacts().hash.clone());
    let path = folder.join("schedules.yaml");
    let schedules = vec![schedule];
    let made_with = [("by".to_string(), "hand".to_string())].into();
    Schedules { manifest_sha256, steps: STEPS, made_with, schedules, ..Schedules::default() }
        .write(&path)
        .expect("it is written");
    path
}

fn hidden(pipeline: &Pipeline) -> usize {
    pipeline.manifest().model.transformer.shape().hidden_size
}

fn request(pipeline: &Pipeline, path: &Path) -> Request {
    let cache_policy = format!("schedule:{}", path.display()).parse().expect("a policy");
    Request { cache_policy, ..emoji::cat(pipeline.manifest(), STEPS) }
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Vec<Image> {
    let request = emoji::checked(pipeline, request);
    pipeline.generate(&request, &mut emoji::ignore).expect("it draws").images
}

#[test]
fn a_corrected_picture_is_the_same_alone_and_among_others() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let mut pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let with = write(&pipeline, &[1, 4, 5, 7], folders[0].path());
    let without = write(&pipeline, &[], folders[1].path());
    let corrected = request(&pipeline, &with);
    let plain = Request { seed: 9, ..request(&pipeline, &without) };
    let interval = "0.3:0.8".parse().expect("an interval");
    let parts = Request { guidance_interval: interval, num_images: 2, ..corrected.clone() };
    let requests = [corrected.clone(), plain, parts];
    let alone: Vec<_> = requests.iter().map(|request| draw(&mut pipeline, request)).collect();
    assert!(together(&mut pipeline, &requests) == alone, "the same bytes");
    assert!(draw(&mut pipeline, &corrected) == alone[0], "after others too");
    let uncorrected = request(&pipeline, &without);
    let uncorrected = draw(&mut pipeline, &uncorrected);
    assert!(alone[0] != uncorrected, "it does something");
}

#[test]
fn a_late_run_is_corrected_only_by_what_it_has_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let path = write(&pipeline, &[4, 5, 7], folder.path());
    let checked = emoji::checked(&pipeline, &request(&pipeline, &path));
    let found = checked.calibration(pipeline.artifacts()).expect("it fits").expect("a file");
    let corrected = |skipped: usize| -> Vec<usize> {
        let plan = found.schedules[0].late(STEPS, skipped);
        (0..plan.len()).filter(|&i| plan[i].correction().is_some()).map(|i| i + skipped).collect()
    };
    assert_eq!(corrected(0), [4, 5, 7]);
    assert_eq!(corrected(2), [5, 7], "at 4 the forecast needs the output of 0");
    assert_eq!(corrected(4), [7], "at 5 the last refresh is not the one that was fitted to");
    assert_eq!(corrected(7), [0; 0]);
}

#[test]
fn corrections_are_read_back_as_written_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let path = write(&pipeline, &[1, 7], folder.path());
    let file = path.with_extension("corrections.safetensors");
    let request = request(&pipeline, &path);
    let checked = emoji::checked(&pipeline, &request);
    let found = checked.calibration(pipeline.artifacts()).expect("it fits").expect("a file");
    assert_eq!(found.schedules[0].corrections.keys().copied().collect::<Vec<_>>(), [1, 7]);
    let (yaml, bytes) = (fs::read_to_string(&path).expect("text"), fs::read(&file).expect("bytes"));
    found.clone().write(&path).expect("it is written");
    assert_eq!(fs::read_to_string(&path).expect("text"), yaml);
    assert_eq!(fs::read(&file).expect("bytes"), bytes);

    let refused = |expected: &str| {
        let error = request.check(pipeline.artifacts()).expect_err("a refusal").to_string();
        assert!(error.starts_with("cache policy schedule:"), "{error}");
        assert!(error.contains(expected) && error.contains("schedules."), "{error}");
    };
    let mut changed = bytes.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    fs::write(&file, changed).expect("it is written");
    refused("not the file that the calibration was made with: make both anew");
    fs::remove_file(&file).expect("it was there");
    refused("make both anew with hydit-serve calibrate");
    fs::write(&file, &bytes).expect("it is written");
    let moved = yaml.replace("[0, 3, 6]", "[0, 3, 7]");
    fs::write(&path, moved).expect("it is written");
    refused("schedules[0]: corrections: step 7 is not one that reuses");
    fs::write(&path, yaml.replace("[0, 3, 6]", "[0, 3]")).expect("it is written");
    refused("3.1: not a correction");
    let unbound = yaml.lines().filter(|line| !line.starts_with("manifest_sha256"));
    fs::write(&path, unbound.collect::<Vec<_>>().join("\n")).expect("it is written");
    refused("corrections_sha256: nothing without manifest_sha256");

    fs::write(&path, &yaml).expect("it is written");
    let none = Schedule { corrections: [].into(), ..found.schedules[0].clone() };
    Schedules { schedules: vec![none], ..found }.write(&path).expect("it is written");
    assert!(!file.exists(), "what no calibration names is not left behind");
    request.check(pipeline.artifacts()).expect("a calibration without corrections");
}

#[test]
fn the_inputs_of_one_file_have_the_correction_of_each_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = emoji::artifacts();
    let pipeline = emoji::pipeline(&artifacts, BackendChoice::Ort);
    let hidden = hidden(&pipeline);
    let tables = |steps: &[usize]| {
        let path = write(&pipeline, steps, folder.path());
        let checked = emoji::checked(&pipeline, &request(&pipeline, &path));
        let tabulator =
            Tabulator::open(Artifacts::open(&artifacts).expect("an export")).expect("tokenizers");
        let (tables, _) = tabulator.tables(&checked).expect("a calibration");
        ["correction_down", "correction_up"].map(|name| {
            let table = tables.iter().find(|table| table.name == name).expect(name);
            let Numbers::F32(numbers) = &table.numbers else { panic!("{name} has floats") };
            (table.shape.clone(), numbers.clone())
        })
    };
    let [(down_shape, down), (up_shape, up)] = tables(&[1, 7]);
    assert_eq!((down_shape, up_shape), (vec![STEPS, hidden, RANK], vec![STEPS, RANK, hidden]));
    let rows = down.chunks_exact(hidden * RANK).zip(up.chunks_exact(hidden * RANK));
    for (step, (down, up)) in rows.enumerate() {
        if [1, 7].contains(&step) {
            let correction = correction(hidden, step);
            assert!(down == correction.down() && up == correction.up(), "of step {step}");
        } else {
            assert!(down.iter().chain(up).all(|number| *number == 0.0), "of step {step}");
        }
    }
    let [none_down, none_up] = tables(&[]);
    assert_eq!(none_down, (vec![1, hidden, 1], vec![0.0; hidden]));
    assert_eq!(none_up, (vec![1, 1, hidden], vec![0.0; hidden]));
}
