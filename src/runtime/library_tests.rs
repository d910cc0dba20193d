use std::{fs, process::Command};

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
    assert!(reason.contains("was cut off: 0 bytes"), "{reason}");
    assert!(report.chosen().is_none());
}

/// An ELF file of 64 bits for `machine`, whose only segment has `bytes`: 120 bytes are its headers.
fn elf(machine: u16, bytes: u64) -> Vec<u8> {
    let mut file = vec![0; 120];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[16..18].copy_from_slice(&3u16.to_le_bytes());
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&1u16.to_le_bytes());
    file[64..68].copy_from_slice(&1u32.to_le_bytes());
    file[96..104].copy_from_slice(&bytes.to_le_bytes());
    file
}

#[test]
fn broken_libraries_are_survived_passed_over_and_told() {
    let (own, other) = if cfg!(target_arch = "x86_64") { (62, 183) } else { (183, 62) };
    let root = folder_with(&[]);
    let path = |name: &str| root.path().join(name);
    let good = Places::of_process().search(Provider::Cpu, false);
    let good = &good.chosen().expect("run scripts/setup-ort first").path;
    let whole = fs::read(good).expect("it is readable");
    fs::create_dir(path("libonnxruntime.so.9.1")).expect("a folder");
    assert!(Command::new("mkfifo").arg(path("libonnxruntime.so.9.2")).status().is_ok());
    std::os::unix::fs::symlink("libonnxruntime.so.9.3", path("libonnxruntime.so.9.3"))
        .expect("a link to itself");
    for (name, bytes) in [
        ("9.4", &whole[..whole.len() / 2]), // to load it would end the process
        ("9.5", &whole[..63]),
        ("9.6", &elf(other, 0)),
        ("9.7", &elf(own, 121)),
        ("9.8", &elf(own, u64::MAX)),
        ("9.9", &elf(own, 120)),
        ("9.10", b"<html>404</html>"),
    ] {
        fs::write(path(&format!("libonnxruntime.so.{name}")), bytes).expect("a file");
    }
    fs::copy(good, path("libonnxruntime.so.1")).expect("a copy");
    let places = Places { variable: None, folders: vec![(Place::System, root.path().into())] };
    let report = places.search(Provider::Cpu, true);
    let told: Vec<String> = report.candidates.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 11);
    for (line, expected) in told.iter().zip([
        "is no shared library",
        "does not load",
        "was cut off",
        "was cut off",
        "is for ",
        "was cut off: 63 bytes",
        "was cut off",
        "cannot be read",
        "is no regular file",
        "is no regular file",
        "usable",
    ]) {
        assert!(line.contains(expected), "{expected}: {line}");
    }
    assert_eq!(chosen(&report), Some("libonnxruntime.so.1"));
}
