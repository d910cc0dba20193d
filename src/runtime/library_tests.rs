use std::fs;

use super::{
    super::places::{python_folders, runtime_folders},
    *,
};

/// Makes `files` (empty) below a temporary folder and returns it.
fn folder_with(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a created folder");
        fs::write(path, "").expect("a written file");
    }
    root
}

fn places(root: &Path, folders: &[(Place, &str)]) -> Places {
    let folders = folders.iter().map(|(place, folder)| (*place, root.join(folder))).collect();
    Places { variable: None, folders }
}

/// A probe that reads the minor version out of the file's name.
fn by_name(path: &Path) -> Result<u32, String> {
    let name = path.file_name().and_then(OsStr::to_str).expect("a name");
    name.split('.')
        .nth(3)
        .and_then(|minor| minor.parse().ok())
        .ok_or_else(|| "not a library".to_owned())
}

fn chosen(report: &SearchReport) -> Option<&str> {
    report.chosen()?.path.file_name()?.to_str()
}

#[test]
fn the_first_usable_library_is_chosen_and_older_ones_are_passed_over() {
    let root = folder_with(&[
        "a/libonnxruntime.so.1.22.1",
        "b/libonnxruntime.so.1.9.0",
        "b/libonnxruntime.so.1.31.1",
        "b/libonnxruntime.so.old",
        "c/libonnxruntime.so.1.32.0",
    ]);
    let places = places(
        root.path(),
        &[(Place::BesideProgram, "a"), (Place::System, "b"), (Place::Python, "c")],
    );
    let report = places.search_with(Provider::Cpu, false, &by_name);
    assert_eq!(chosen(&report), Some("libonnxruntime.so.1.31.1"));
    let verdicts: Vec<_> = report.candidates.iter().map(|c| (c.place, c.verdict.clone())).collect();
    let expected = [
        (Place::BesideProgram, Verdict::TooOld),
        (Place::System, Verdict::Usable),
        (Place::System, Verdict::NotTried),
        (Place::Python, Verdict::NotTried),
    ];
    assert_eq!(verdicts, expected);
    assert!(report.refused().contains("ONNX Runtime 1.22.1 at "), "{}", report.refused());

    let all = places.search_with(Provider::Cpu, true, &by_name);
    assert_eq!(all.candidates[3].verdict, Verdict::Usable);
    assert_eq!(all.candidates[2].verdict, Verdict::TooOld);
}

#[test]
fn what_the_variable_names_is_never_passed_over() {
    let root = folder_with(&["old/libonnxruntime.so.1.22.1", "new/libonnxruntime.so.1.31.1"]);
    let mut places = places(root.path(), &[(Place::System, "new")]);
    places.variable = Some(root.path().join("old/libonnxruntime.so.1.22.1"));
    for all in [false, true] {
        let report = places.search_with(Provider::Cpu, all, &by_name);
        assert_eq!(chosen(&report), None);
        assert_eq!(report.refused_variable().expect("a refusal").verdict, Verdict::TooOld);
    }
}

#[test]
fn a_gpu_provider_passes_over_a_cpu_build() {
    let root = folder_with(&[
        "cpu/libonnxruntime.so.1.31.1",
        "gpu/libonnxruntime.so.1.30.0",
        "gpu/libonnxruntime_providers_cuda.so",
    ]);
    let places = places(root.path(), &[(Place::RuntimeFolder, "cpu"), (Place::Python, "gpu")]);
    let report = places.search_with(Provider::Cuda, false, &by_name);
    assert_eq!(chosen(&report), Some("libonnxruntime.so.1.30.0"));
    assert_eq!(
        report.candidates[0].verdict,
        Verdict::NoProvider("libonnxruntime_providers_cuda.so")
    );
    assert_eq!(
        chosen(&places.search_with(Provider::Cpu, false, &by_name)),
        Some("libonnxruntime.so.1.31.1")
    );
}

#[test]
fn the_same_file_is_looked_at_once() {
    let root = folder_with(&["a/libonnxruntime.so.1.31.1"]);
    std::os::unix::fs::symlink("libonnxruntime.so.1.31.1", root.path().join("a/libonnxruntime.so"))
        .expect("a link");
    let places = places(root.path(), &[(Place::System, "a"), (Place::Python, "a")]);
    assert_eq!(places.search_with(Provider::Cpu, true, &by_name).candidates.len(), 1);
}

#[test]
fn the_python_and_runtime_folders_are_found() {
    let root = folder_with(&[
        ".runtime/1.31.1/libonnxruntime.so.1.31.1",
        ".runtime/1.9.0/libonnxruntime.so.1.9.0",
        "venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1",
    ]);
    let found: Vec<_> = runtime_folders(&root.path().join(".runtime")).collect();
    let expected =
        [".runtime", ".runtime/1.31.1", ".runtime/1.9.0"].map(|folder| root.path().join(folder));
    assert_eq!(found, expected);
    let python = python_folders(&root.path().join("venv"));
    assert_eq!(python.iter().flat_map(|folder| libraries_in(folder)).count(), 1);
}

#[test]
fn a_file_that_is_no_library_is_refused_with_the_loaders_words() {
    let root = folder_with(&["a/libonnxruntime.so.1.31.1"]);
    let report = places(root.path(), &[(Place::System, "a")]).search(Provider::Cpu, false);
    let Verdict::Unloadable(reason) = &report.candidates[0].verdict else { panic!("{report:?}") };
    assert!(reason.contains("file too short"), "{reason}");
    assert!(report.chosen().is_none());
}
