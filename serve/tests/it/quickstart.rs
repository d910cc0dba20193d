//! `quickstart`, with the programs where a package puts them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use hydit::image::read_png;
use hydit::request::Parameters;
use hydit_testing::repository;
use tempfile::TempDir;

use crate::program::text;

/// Where the program of a package finds nothing but what is in the package.
struct Package(TempDir);

impl Package {
    /// The programs in `bin/`.
    fn new() -> Package {
        let package = Package(tempfile::tempdir().expect("a folder"));
        let serve = Path::new(env!("CARGO_BIN_EXE_hydit-serve"));
        for program in [serve, &serve.with_file_name("hydit-export")] {
            package
                .put(program, &format!("bin/{}", program.file_name().expect("a name").display()));
        }
        fs::create_dir(package.0.path().join("home")).expect("it is made");
        package
    }

    /// Has the file `from` at the path `to` as well.
    fn put(&self, from: &Path, to: &str) {
        let to = self.0.path().join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("it is made");
        let linked = fs::hard_link(from, &to);
        linked.or_else(|_| fs::copy(from, &to).map(|_| ())).expect("it is copied");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let home = self.0.path().join("home");
        Command::new(self.0.path().join("bin/hydit-serve"))
            .args(arguments)
            .current_dir(&home)
            .env("HOME", &home)
            .env("PATH", "/nonexistent")
            .env_remove("VIRTUAL_ENV")
            .env_remove("ORT_DYLIB_PATH")
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .expect("it starts")
    }
}

#[test]
fn a_package_draws_with_what_lies_in_it_and_overwrites_nothing() {
    let package = Package::new();
    let place = "lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1";
    package.put(&repository().join(".runtime/1.31.1/libonnxruntime.so.1.31.1"), place);
    let share = package.0.path().join("share/hydit");
    fs::create_dir_all(&share).expect("it is made");
    symlink(repository().join("models"), share.join("models")).expect("a link");

    let folder = package.0.path().join("home/hydit-quickstart");
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
    let mut kept = Vec::new();
    for picture in ["picture.png", "picture-2.png"] {
        let output = package.run(&["quickstart"]);
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{said}");
        let runtime = package.0.path().canonicalize().expect("a path").join(place);
        assert!(said.contains(&format!("({})", runtime.display())), "{said}");
        assert!(said.contains("the deep core ran at 14 of 25 steps"), "{said}");
        let name = format!("hydit-quickstart/{picture}");
        assert!(
            out.starts_with(&format!("{name}\n\nNext:\n"))
                && out.contains("\n  hydit-serve serve --model hydit-quickstart/emoji\n"),
            "{out}"
        );
        assert!(!out.contains("onnxruntime"), "nothing is missing: {out}");
        let (image, texts) = read_png(&folder.join(picture)).expect("a picture");
        assert_eq!((image.width, image.height), (128, 128));
        let prompt = Parameters::from_texts(&texts).expect("parameters").request.prompt;
        assert_eq!(prompt, "蓝色背景上的猫");
        let now = (read("emoji/manifest.yaml"), read("picture.png"));
        assert!(kept.is_empty() || kept[0] == now, "the first run's files stay");
        assert_eq!(said.contains("as it is there already"), !kept.is_empty(), "{said}");
        kept.push(now);
    }
}

#[test]
fn what_is_missing_is_told_with_what_brings_it() {
    let package = Package::new();
    let doctor = text(&package.run(&["doctor"]).stdout);
    let brings =
        "none; this brings one:\n    python3 -m venv .venv && .venv/bin/pip install onnxruntime==";
    assert!(doctor.contains(brings), "{doctor}");
    let own = package.0.path().canonicalize().expect("a path");
    for file in ["pyvenv.cfg", "bin/pip"] {
        fs::write(own.join(file), "").expect("a file");
    }
    let doctor = text(&package.run(&["doctor"]).stdout);
    assert!(
        doctor.contains(&format!("    {}/bin/pip install onnxruntime==", own.display())),
        "{doctor}"
    );

    let output = package.run(&["quickstart"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["several times as fast: ", "/share/hydit/models/emoji\n", "name a checkpoint with"]
    {
        assert!(said.contains(part), "{said}");
    }
    fs::remove_file(own.join("bin/hydit-export")).expect("it was there");
    let checkpoint = repository().join("models/emoji");
    let checkpoint = checkpoint.to_str().expect("a plain path");
    let said = text(&package.run(&["quickstart", "--checkpoint", checkpoint]).stderr);
    assert!(said.contains("hydit-export is neither beside hydit-serve nor on PATH"), "{said}");
    assert!(!own.join("home/hydit-quickstart/emoji").exists());
}
