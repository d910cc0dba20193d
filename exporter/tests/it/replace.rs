//! An export over an older one: one at a time, and whenever it is killed, one of them is whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hydit_export::{Folder, Options, export};
use hydit_graphs::Precision;

use crate::checkpoint::{Place, Told, files, message};

type Files = BTreeMap<String, Vec<u8>>;

/// A checkpoint, and its exports in fp32 and fp16.
fn two_exports() -> (Place, [Files; 2]) {
    let place = Place::new();
    let made = [Precision::Fp32, Precision::Fp16].map(|precision| {
        let out = place.path().join(precision.to_string());
        export(&Options { precision, out: out.clone(), ..place.options() }, &mut ())
            .expect("an export");
        files(&out)
    });
    (place, made)
}

/// The program, exporting to `out`.
fn program(place: &Place, out: &Path, dtype: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydit-export"));
    command.arg("--checkpoint").arg(place.checkpoint()).arg("--out").arg(out);
    command.args(["--dtype", dtype]).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// As [`files`], without those that are there only while an export is written.
fn visible(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let names = entries.map(|entry| entry.file_name().into_string().expect("a name"));
    names
        .filter(|name| !name.starts_with(".hydit-export-"))
        .map(|name| (name.clone(), fs::read(folder.join(name)).expect("a file")))
        .collect()
}

/// Checks that nothing lies beside the artifact folder `out` of `place` but what was there before.
fn nothing_beside(place: &Place) {
    let entries =
        fs::read_dir(place.path()).expect("a folder").map(|entry| entry.expect("an entry"));
    for name in entries.map(|entry| entry.file_name()) {
        assert!(!name.to_string_lossy().starts_with('.'), "{name:?} is left");
    }
}

#[test]
fn a_second_export_is_refused_until_the_first_has_ended() {
    let place = Place::new();
    let first = Folder::prepare(&place.out()).expect("a folder");
    let error = message(&place.export().expect_err("a refusal"));
    assert!(error.starts_with("--out: another export is writing to "), "{error}");
    drop(first);
    assert!(!place.out().exists());
    nothing_beside(&place);
    place.export().expect("an export");
    assert!(files(&place.out()).keys().all(|name| !name.starts_with('.')));
    nothing_beside(&place);
}

#[test]
fn of_exports_at_once_one_is_left_whole() {
    let (place, made) = two_exports();
    for round in 0..3 {
        let out = place.path().join(format!("out-{round}"));
        let dtypes = ["fp32", "fp16", "fp32", "fp16"];
        let running: Vec<Child> =
            dtypes.map(|dtype| program(&place, &out, dtype).spawn().expect("it starts")).into();
        let mut done = 0;
        for child in running {
            let output = child.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stderr);
            done += usize::from(output.status.success());
            assert!(
                output.status.success() || said.contains("another export is writing"),
                "{said}"
            );
        }
        assert!(done > 0);
        assert!(made.contains(&files(&out)), "{:?}", files(&out).keys());
        nothing_beside(&place);
    }
}

/// Lets the fp16 export over the fp32 one come as far as `reached` says, and kills it. Gives what is
/// in the folder then.
fn killed(place: &Place, inside: bool, reached: &dyn Fn() -> bool) -> Files {
    let out = place.out();
    let mut command = program(place, if inside { Path::new(".") } else { &out }, "fp16");
    if inside {
        command.current_dir(&out);
    }
    let mut child = command.spawn().expect("it starts");
    while !reached() && child.try_wait().expect("its state").is_none() {
        std::thread::yield_now();
    }
    child.kill().expect("killed, if it has not ended");
    child.wait().expect("it ends");
    visible(&out)
}

#[test]
fn whenever_an_export_is_killed_the_older_or_the_new_one_is_whole() {
    let (place, [older, new]) = two_exports();
    let out = place.out();
    let count = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    let (mut before, mut after) = (0, 0);
    // Killed when so many files are staged; the last, as soon as the folders are exchanged.
    for staged in (1..=new.len()).step_by(3).chain([usize::MAX; 4]) {
        export(&Options { out: out.clone(), ..place.options() }, &mut ()).expect("an export");
        fs::write(out.join("calibration-ddim-leading-4.yaml"), "mine").expect("written");
        let inode = fs::metadata(&out).expect("a folder").ino();
        let beside = place.path().join(".out.hydit-export");
        let mut left = killed(&place, false, &|| {
            let exchanged = fs::metadata(&out).is_ok_and(|found| found.ino() != inode);
            exchanged || count(&beside) >= staged
        });
        assert_eq!(left.remove("calibration-ddim-leading-4.yaml").as_deref(), Some(&b"mine"[..]));
        assert!(left == older || left == new, "{staged} staged: {:?}", left.keys());
        before += usize::from(left == older);
        after += usize::from(left == new);
    }
    assert!(before > 3 && after > 0, "{before} {after}");
    // The next one cleans up.
    export(&Options { out: out.clone(), ..place.options() }, &mut ()).expect("an export");
    let mut left = files(&out);
    assert!(left.remove("calibration-ddim-leading-4.yaml").is_some());
    assert!(left == older);
    nothing_beside(&place);
}

#[test]
fn there_is_a_manifest_at_every_moment_of_an_export_over_an_older_one() {
    let place = Place::new();
    place.export().expect("an export");
    let manifest = place.out().join("manifest.yaml");
    let mut looked = 0;
    for precision in [Precision::Fp16, Precision::Fp32].repeat(8) {
        let options = Options { precision, ..place.options() };
        std::thread::scope(|scope| {
            let exporting = scope.spawn(|| export(&options, &mut ()).map(drop));
            while !exporting.is_finished() {
                assert!(manifest.exists(), "seen without a manifest");
                looked += 1;
            }
            exporting.join().expect("no panic").expect("an export");
        });
    }
    assert!(looked > 100, "{looked}");
}

#[test]
fn an_export_from_within_the_folder_is_undone_by_the_next_if_it_is_killed() {
    let (place, [older, new]) = two_exports();
    let out = place.out();
    let staging = out.join(".hydit-export-new");
    for moved in (0..new.len()).step_by(4) {
        export(&Options { out: out.clone(), ..place.options() }, &mut ()).expect("an export");
        killed(&place, true, &|| {
            let replaced = fs::read_dir(staging.join(".hydit-export-replaced"));
            replaced.map_or(0, Iterator::count) > moved
        });
        drop(Folder::prepare(&out).expect("a folder"));
        let left = files(&out);
        assert!(left == older || left == new, "{moved} moved: {:?}", left.keys());
    }
}

#[test]
fn what_is_not_of_an_export_stays() {
    let place = Place::new();
    export(&Options { full: true, ..place.options() }, &mut ()).expect("an export");
    let out = place.out();
    fs::create_dir_all(out.join("notes/deep")).expect("folders");
    fs::write(out.join("notes/deep/a.txt"), "mine").expect("written");
    symlink("notes/deep/a.txt", out.join("link")).expect("a link");
    fs::write(out.join("calibration-dpmms-linspace-25.yaml"), "mine too").expect("written");
    let inode = |name: &str| fs::metadata(out.join(name)).expect("it is there").ino();
    let before = ["notes/deep/a.txt", "calibration-dpmms-linspace-25.yaml"].map(inode);
    place.export().expect("an export");
    let after = ["notes/deep/a.txt", "calibration-dpmms-linspace-25.yaml"].map(inode);
    assert_eq!(before, after);
    assert_eq!(fs::read_link(out.join("link")).expect("a link"), Path::new("notes/deep/a.txt"));
    assert!(!out.join("full.onnx").exists());
    nothing_beside(&place);
}

#[test]
fn an_older_export_of_which_files_are_gone_is_replaced() {
    let place = Place::new();
    export(&Options { full: true, ..place.options() }, &mut ()).expect("an export");
    for name in ["full.onnx.data", "LICENSE.txt", "deep-core.onnx"] {
        fs::remove_file(place.out().join(name)).expect("removed");
    }
    place.export().expect("an export");
    let fresh = Place::new();
    fresh.export().expect("an export");
    assert!(files(&place.out()) == files(&fresh.out()));
}

#[test]
fn what_is_in_the_way_is_refused_and_stays() {
    let place = Place::new();
    place.export().expect("an export");
    let (out, full) = (place.out(), place.out().join("full.onnx"));
    let with_full = || {
        let options = Options { full: true, ..place.options() };
        message(&export(&options, &mut Told::default()).expect_err("a refusal"))
    };
    fs::create_dir(&full).expect("a folder");
    let error = with_full();
    assert!(error.contains("full.onnx is a folder, where a file of the export goes"), "{error}");
    fs::remove_dir(&full).expect("removed");

    fs::write(&full, "another's").expect("written");
    let error = with_full();
    assert!(error.contains("full.onnx is not of the export in it"), "{error}");
    assert_eq!(fs::read(&full).expect("a file"), b"another's");
    fs::remove_file(&full).expect("removed");

    fs::remove_file(out.join("manifest.yaml")).expect("removed");
    fs::create_dir(out.join("manifest.yaml")).expect("a folder");
    let error = message(&place.export().expect_err("a refusal"));
    assert!(error.contains("manifest.yaml is a folder"), "{error}");
    nothing_beside(&place);
}

#[test]
fn a_link_to_an_artifact_folder_stays_a_link() {
    let place = Place::new();
    let real = place.path().join("real");
    fs::create_dir(&real).expect("a folder");
    symlink("real", place.out()).expect("a link");
    place.export().expect("an export");
    place.export().expect("another");
    assert_eq!(fs::read_link(place.out()).expect("a link"), Path::new("real"));
    assert!(real.join("manifest.yaml").exists());
    nothing_beside(&place);
}
