//! What a program answers to what it cannot take, in files that people can read: a section for each
//! argument, a line for each thing that was put in its place.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use tempfile::TempDir;

/// The place of what is tried in the words of a command.
pub const HERE: &str = "{}";
/// Writes what was answered in the place of what was noted.
const WRITE: &str = "HYDIT_WRITE_ANSWERS";
/// A program that takes longer has waited for something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Things that lie where a file or a folder is expected, in a folder of their own.
pub struct Things {
    folder: TempDir,
    _socket: UnixListener,
}

impl Things {
    /// Makes the things in a new folder of temporary files.
    ///
    /// # Panics
    /// When one of them cannot be made.
    pub fn new() -> Things {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder")).expect("a folder");
        fs::write(path("empty"), "").expect("a file");
        fs::write(path("text"), "Not what is expected here.\n").expect("a file");
        File::create(path("zeros")).and_then(|file| file.set_len(1 << 40)).expect("a hollow file");
        assert!(Command::new("mkfifo").arg(path("pipe")).status().expect("it runs").success());
        symlink("/dev/zero", path("device")).expect("a link");
        symlink("nowhere", path("dangling")).expect("a link");
        symlink("itself", path("itself")).expect("a link");
        let socket = UnixListener::bind(path("socket")).expect("a socket");
        Things { folder, _socket: socket }
    }

    /// The folder that they lie in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Each by its name, as what is read.
    pub fn to_read(&self) -> Vec<(&'static str, OsString)> {
        let mut things = self.everywhere();
        things.extend(self.named(&[
            ("nothing", "none"),
            ("an empty folder", "folder"),
            ("an empty file", "empty"),
            ("a text", "text"),
            ("a terabyte of zeros", "zeros"),
            ("a link to nothing", "dangling"),
            ("a named pipe", "pipe"),
            ("a device", "device"),
        ]));
        things
    }

    /// Each by its name, as what is written.
    pub fn to_write(&self) -> Vec<(&'static str, OsString)> {
        let mut things = self.everywhere();
        things.extend(self.named(&[
            ("a file in no folder", "none/new"),
            ("a folder with files", "."),
            ("a full disk", "/dev/full"),
        ]));
        things
    }

    fn everywhere(&self) -> Vec<(&'static str, OsString)> {
        let mut things = self.named(&[
            ("a socket", "socket"),
            ("a link to itself", "itself"),
            ("a file in a file", "text/file"),
        ]);
        let name = |bytes: &[u8]| self.path().join(OsStr::from_bytes(bytes)).into_os_string();
        things.push(("an empty text", OsString::new()));
        things.push(("a name of 300 bytes", name(&[b'x'; 300])));
        things.push(("a path of 5,000 bytes", name(&b"xxxxxxxxx/".repeat(500))));
        things.push(("a name with a line break", name(b"none/a\nb\x1b[2J")));
        things.push(("a name that is not UTF-8", name(b"none/\xff")));
        things
    }

    fn named(&self, names: &[(&'static str, &str)]) -> Vec<(&'static str, OsString)> {
        let path = |name: &str| self.path().join(name).into_os_string();
        names.iter().map(|(what, name)| (*what, path(name))).collect()
    }
}

impl Default for Things {
    fn default() -> Things {
        Things::new()
    }
}

/// Answers, under the command that gave them.
#[derive(Default)]
pub struct Answers {
    text: String,
    /// What is written in the place of what differs from run to run.
    known: Vec<(String, &'static str)>,
}

impl Answers {
    /// Writes `word` where an answer has `path`.
    pub fn know(&mut self, path: &Path, word: &'static str) {
        self.known.push((path.display().to_string(), word));
    }

    /// Begins the section of a command.
    pub fn section(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let title = self.told(title);
        writeln!(self.text, "{gap}{title}").expect("memory");
    }

    /// Notes, as a section, what a command of `program` says to each of `things` in the place of
    /// [`HERE`] in `words`.
    ///
    /// # Panics
    /// As [`Answers::note`].
    pub fn each(
        &mut self,
        program: impl Fn() -> Command,
        words: &[&str],
        things: &[(&str, OsString)],
    ) {
        self.section(&words.join(" ").replace(HERE, "..."));
        for (what, thing) in things {
            let place = |word: &&str| match word.strip_suffix(HERE) {
                None => OsString::from(word),
                Some(before) => [OsStr::new(before), thing].into_iter().collect(),
            };
            let mut command = program();
            command.args(words.iter().map(place));
            self.note(what, command);
        }
    }

    /// Notes what `command` says to `what`: a line that begins with `error: `, or that it took it.
    ///
    /// # Panics
    /// When it crashes, hangs, or says what a terminal would obey.
    pub fn note(&mut self, what: &str, command: Command) {
        let asked = format!("{command:?}");
        let (code, said) = run(command);
        let code = code.unwrap_or_else(|| panic!("{asked}: ended by a signal: {said}"));
        assert!(!said.contains("panicked"), "{asked}: {said}");
        let obeyed = |c: char| c.is_control() && c != '\n';
        assert!(!said.contains(obeyed), "{asked}: {said:?}");
        let line = said.lines().find_map(|line| line.strip_prefix("error: "));
        assert_eq!(line.is_some(), code != 0, "{asked}: code {code}: {said}");
        let answer = self.told(line.unwrap_or("(taken)"));
        writeln!(self.text, "    {what:26} {answer}").expect("memory");
    }

    /// A text as it is noted: the same on every machine, and no longer than anybody reads.
    fn told(&self, text: &str) -> String {
        let known = self.known.iter();
        let mut told = known.fold(text.to_string(), |told, (path, word)| told.replace(path, word));
        while let Some((start, end)) = longest_run(&told) {
            told.replace_range(start..end, "...");
        }
        // How much an error leaves out differs with the folder of temporary files.
        if let Some((before, rest)) = told.split_once("... (")
            && let Some((_, after)) = rest.split_once(" more)")
        {
            told = format!("{before}... (N more){after}");
        }
        told
    }

    /// Compares all with the file `noted`.
    ///
    /// # Panics
    /// When they differ. With `HYDIT_WRITE_ANSWERS=1` the file is written instead.
    #[track_caller]
    pub fn compare(&self, noted: &Path) {
        if env::var_os(WRITE).is_some() {
            return fs::write(noted, &self.text).expect("it is written");
        }
        let expected = fs::read_to_string(noted).expect("the answers that were noted");
        for (line, (expected, got)) in expected.lines().zip(self.text.lines()).enumerate() {
            let place = format!("{}:{}", noted.display(), line + 1);
            assert_eq!(expected, got, "{place}; {WRITE}=1 writes what is answered now");
        }
        assert_eq!(expected.lines().count(), self.text.lines().count(), "{}", noted.display());
    }
}

/// A run of the same byte or of `xxxxxxxxx/`, longer than anybody reads.
fn longest_run(text: &str) -> Option<(usize, usize)> {
    let start = text.find(&"x".repeat(40)).or_else(|| text.find(&"xxxxxxxxx/".repeat(4)))?;
    let rest = text[start..].trim_start_matches(['x', '/']);
    Some((start, text.len() - rest.len()))
}

/// Runs it to its end: its exit code, and what it wrote to standard error.
fn run(mut command: Command) -> (Option<i32>, String) {
    let asked = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stderr = child.stderr.take().expect("it is piped");
    let reading = thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| said)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("it can be ended");
            panic!("{asked}: it has not ended in {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let said = reading.join().expect("no panic").expect("it is read");
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The file `tests/answers/NAME` of the crate in `folder`.
pub fn noted(folder: &str, name: &str) -> PathBuf {
    Path::new(folder).join("tests/answers").join(name)
}
