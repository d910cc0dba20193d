//! Where pictures and figures go: files, links, pipes, devices and standard output.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use hydit::image::read_png;
use serde_json::Value;

use crate::program::{Scratch, command, plain, serve, text};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const IEND: &[u8] = b"IEND\xae\x42\x60\x82";

impl Scratch {
    fn draw(&self, out: &str, more: &[&str]) -> Command {
        let model = ["generate", "--model", &self.model, "--backend", "ort", "--prompt", "a cat"];
        command(&[&model[..], &["--infer-steps", "2", "-o", out], more].concat())
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("it starts").success());
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = self.folder.path().read_dir().expect("readable");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }
}

/// Runs it; it must have succeeded.
fn done(mut command: Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// Reads a pipe to its end, on a thread of its own.
fn reader(pipe: &Path) -> thread::JoinHandle<Vec<u8>> {
    let pipe = pipe.to_path_buf();
    thread::spawn(move || fs::read(pipe).expect("it is read"))
}

#[track_caller]
fn is_one_png(bytes: &[u8]) {
    assert!(bytes.starts_with(PNG) && bytes.ends_with(IEND), "{}", bytes.len());
}

#[test]
fn a_pipe_gets_the_picture_and_stays_a_pipe() {
    let scratch = Scratch::new();
    let pipe = scratch.fifo("pipe");
    let link = scratch.file("link");
    symlink("pipe", &link).expect("a link");
    for out in [plain(&pipe), &link] {
        let reading = reader(&pipe);
        done(scratch.draw(out, &[]));
        is_one_png(&reading.join().expect("it is read"));
        let kind = |path: &str| fs::symlink_metadata(path).expect("it is there").file_type();
        assert!(kind(plain(&pipe)).is_fifo() && kind(&link).is_symlink());
    }
    assert_eq!(scratch.names(), ["link", "pipe"]);
}

#[test]
fn a_link_is_followed_and_stays_and_a_file_keeps_its_permissions() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.file("folder")).expect("a folder");
    fs::write(scratch.file("folder/old.png"), "old").expect("a file");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(scratch.file("folder/old.png"), private).expect("it is ours");
    symlink("folder/old.png", scratch.file("a.png")).expect("a link");
    symlink("a.png", scratch.file("b.png")).expect("a link to a link");
    symlink("folder/new.png", scratch.file("dangling.png")).expect("a link to nothing yet");
    symlink("folder", scratch.file("way")).expect("a link to a folder");
    for (out, file) in [
        ("b.png", "folder/old.png"),
        ("dangling.png", "folder/new.png"),
        ("way/newer.png", "folder/newer.png"),
    ] {
        done(scratch.draw(&scratch.file(out), &[]));
        read_png(Path::new(&scratch.file(file))).expect("a picture at the end of the links");
    }
    let mode = fs::metadata(scratch.file("folder/old.png")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for link in ["a.png", "b.png", "dangling.png", "way"] {
        assert!(fs::symlink_metadata(scratch.file(link)).expect("a link").is_symlink(), "{link}");
    }
    assert_eq!(scratch.names().len(), 5);
}

#[test]
fn standard_output_gets_the_picture_and_nothing_else() {
    let scratch = Scratch::new();
    let file = scratch.file("cat.png");
    done(scratch.draw(&file, &[]));
    let expected = fs::read(&file).expect("a file");
    for out in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = done(scratch.draw(out, &[]));
        assert!(output.stdout == expected, "{out}: {} bytes", output.stdout.len());
        let told = text(&output.stderr);
        assert!(
            told.contains("denoising loop") && told.contains("wrote standard output"),
            "{told}"
        );
    }
    let told = text(&done(scratch.draw("-", &["--json"])).stderr);
    let (_, told) = told.split_once('\n').expect("the engine, then the report");
    let told: Value = serde_json::from_str(told).expect("JSON");
    assert_eq!(told["images"][0]["path"], "standard output");

    // A file that standard output was sent to is not replaced: the shell's others write there too.
    let into = scratch.file("into");
    let mut command = scratch.draw("/dev/stdout", &[]);
    command.stdout(File::create(&into).expect("a file"));
    done(command);
    assert!(fs::read(&into).expect("a file") == expected);
    let closed = scratch.draw("/dev/fd/99", &[]).output().expect("it starts");
    assert!(text(&closed.stderr).contains("cannot write into /dev/fd"), "{closed:?}");
}

#[test]
fn what_cannot_be_written_is_refused_in_a_line_before_anything_is_drawn() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.file("folder")).expect("a folder");
    let _socket = UnixListener::bind(scratch.file("socket")).expect("a socket");
    scratch.fifo("pipe");
    symlink("loop", scratch.file("loop")).expect("a link to itself");
    symlink("missing/cat.png", scratch.file("astray")).expect("a link into nowhere");
    symlink("folder", scratch.file("to-folder")).expect("a link");
    fs::write(scratch.file("file"), "").expect("a file");
    let before = scratch.names();
    let long = "n".repeat(252) + ".png";
    let almost = "n".repeat(250) + ".png";
    let cases: &[(&str, &[&str], &str)] = &[
        ("folder", &[], "it is a folder; name a file in it"),
        ("to-folder", &[], "it is a folder"),
        ("new-folder/", &[], "it is the name of a folder"),
        ("new-folder/.", &[], "it is the name of a folder"),
        ("socket", &[], "it is a socket"),
        ("loop", &[], "symbolic links"),
        ("astray", &[], "cannot write into"),
        ("missing/cat.png", &[], "cannot write into"),
        ("file/cat.png", &[], "Not a directory"),
        (&long, &[], "name too long"),
        (&almost, &["--batch-size", "2"], "name too long"),
        ("cat.gif", &[], "cat.gif must end in .png, .jpg, .jpeg or .webp"),
        ("cat.png.bak", &[], "must end in .png, .jpg, .jpeg or .webp"),
        ("pipe", &["--batch-size", "2"], "pipe takes one image"),
        ("/dev/null", &["--compare", "--use-cache"], "/dev/null takes one image"),
    ];
    for (out, more, expected) in cases {
        let out = scratch.folder.path().join(out); // an absolute one stays as it is
        let refused = scratch.draw(plain(&out), more).output().expect("it starts");
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.starts_with("error: --output: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains(expected), "{}: {told}", out.display());
        assert_eq!(scratch.names(), before, "{}", out.display());
    }
    let several = scratch.draw("-", &["--batch-size", "2"]).output().expect("it starts");
    assert!(text(&several.stderr).contains("standard output takes one image"), "{several:?}");

    let file = scratch.file("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let written = scratch.draw(&file, &[]).output().expect("it starts");
    // Nothing is write-protected from the superuser.
    assert_eq!(written.status.success(), rustix::process::geteuid().is_root(), "{written:?}");
}

#[test]
fn the_ending_chooses_the_format_of_all_files() {
    let scratch = Scratch::new();
    let start = |bytes: &[u8]| bytes[..12].to_vec();
    let jpeg = b"\xff\xd8\xff";
    for out in ["a.jpg", "b.JPEG", "c.webp"] {
        let told = done(scratch.draw(&scratch.file(out), &[]));
        let bytes = start(&fs::read(scratch.file(out)).expect("a file"));
        assert!(if out == "c.webp" { &bytes[8..] == b"WEBP" } else { bytes.starts_with(jpeg) });
        assert!(text(&told.stderr).contains("does not keep its parameters"), "{told:?}");
    }
    let more = ["--batch-size", "2", "--compare", "--cache-policy", "N2-1000-0", "--no-metadata"];
    let told = done(scratch.draw(&scratch.file("d.jpg"), &more));
    assert!(!text(&told.stderr).contains("note: "), "{told:?}");
    for name in ["d-0.jpg", "d-1.jpg", "d-compare.jpg"] {
        assert!(fs::read(scratch.file(name)).expect("a file").starts_with(jpeg), "{name}");
    }
    done(scratch.draw(&scratch.file("plain"), &[]));
    read_png(Path::new(&scratch.file("plain"))).expect("a PNG without an ending");
    assert_eq!(scratch.names().len(), 7);

    let tall = ["--batch-size", "64", "--compare", "--use-cache", "--image-size", "512", "512"];
    let refused = scratch.draw(&scratch.file("e.webp"), &tall).output().expect("it starts");
    let told = text(&refused.stderr);
    assert!(told.contains("32768") && told.contains("write .png"), "{told}");
}

#[test]
fn figures_and_sheets_go_to_the_same_places() {
    let scratch = Scratch::new();
    let sheet = |files: &[&str]| {
        let model = ["sheet", "--model", &scratch.model, "--backend", "ort", "--prompt", "a cat"];
        command(&[&model[..], &["--infer-steps", "2", "--policy", "N2-1000-0"], files].concat())
    };
    let (pipe, svg) = (scratch.fifo("pipe"), scratch.file("plot.svg"));
    let reading = reader(&pipe);
    let output = done(sheet(&["-o", plain(&pipe), "--csv", "-", "--plot", &svg]));
    is_one_png(&reading.join().expect("it is read"));
    assert!(output.stdout.starts_with(b"prompt,seed,"), "{}", text(&output.stdout));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(text(&output.stderr).contains("N2-1000-0"), "{}", text(&output.stderr));

    symlink("plot.svg", scratch.file("other.svg")).expect("a link");
    let other = scratch.file("other.svg");
    for (files, expected) in [
        (&["-o", &svg, "--plot", &other][..], "--output and --plot name the same file"),
        (&["-o", "-", "--csv", "/dev/stdout"], "--output and --csv name the same file"),
        (&["-o", &scratch.file("sheet.gif")], ".html or .png or .svg"),
        (&["--csv", plain(scratch.folder.path())], "--csv: cannot write"),
    ] {
        let refused = sheet(files).output().expect("it starts");
        let told = text(&refused.stderr);
        assert!(told.contains(expected) && told.lines().count() == 1, "{told}");
    }
    let bench = ["bench", "--model", &scratch.model, "--backend", "ort", "--policy", "off"];
    let bench = [&bench[..], &["--infer-steps", "2", "--rounds", "1", "--json", "-"]].concat();
    let output = done(command(&bench));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(told["rounds"], 1);
    assert!(text(&output.stderr).contains("wrote standard output"), "{}", text(&output.stderr));
}

#[test]
fn a_calibration_goes_down_a_pipe() {
    let scratch = Scratch::new();
    let prompts = scratch.file("prompts.txt");
    fs::write(&prompts, "a cat\na dog\n").expect("a file");
    let out = scratch.fifo("pipe");
    let reading = reader(&out);
    let model = ["calibrate", "--model", &scratch.model, "--backend", "ort", "--runs", "2"];
    let flags = ["--prompts", &prompts, "--infer-steps", "4", "-o", plain(&out)];
    let output = serve(&[&model[..], &flags].concat());
    let mut found = String::new();
    reading.join().expect("it is read").as_slice().read_to_string(&mut found).expect("text");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(found.contains("steps: 4") && found.contains("- refresh: "), "{found}");
    assert_eq!(scratch.names(), ["pipe", "prompts.txt"]);
}
