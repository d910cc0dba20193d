//! Settings of the server: where they come from, what is refused, what is told.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::harness::{command, model};

const SECRET: &str = "0123456789abcdef-secret";

/// A model's folder with nothing in it: settings are told, then the start fails.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_string()
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = command(&["--listen", "127.0.0.1:0", "--model"]);
        command.arg(self.path()).args(flags);
        command
    }
}

/// What it said; it must have failed.
fn log(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

fn setting<'a>(log: &'a str, name: &str) -> &'a str {
    let start = format!("setting {name} = ");
    let line = log.lines().find_map(|line| line.split_once(&start));
    line.unwrap_or_else(|| panic!("no {name} in {log}")).1
}

#[test]
fn the_flag_wins_then_the_environment_then_the_file() {
    let place = Place::new();
    let config = place.file("hydit.yaml", "queue: 10\ndeadline: 2m\nexact: true\n");
    let nothing = log(place.command(&[]));
    assert_eq!(setting(&nothing, "queue"), r#"64 source=default"#);

    let file = ["--config", config.as_str()];
    let with_file = log(place.command(&file));
    assert_eq!(setting(&with_file, "queue"), "10 source=file");
    assert_eq!(setting(&with_file, "deadline"), "2m source=file");
    assert_eq!(setting(&with_file, "exact"), "true source=file");
    assert_eq!(setting(&with_file, "workers"), "1 source=default");

    let mut command = place.command(&file);
    command.env("HYDIT_QUEUE", "20").env("HYDIT_EXACT", "0");
    let with_variable = log(command);
    assert_eq!(setting(&with_variable, "queue"), "20 source=environment");
    assert_eq!(setting(&with_variable, "exact"), "false source=environment");

    let mut command = place.command(&["--queue", "30", "--exact=false"]);
    command.env("HYDIT_QUEUE", "20").env("HYDIT_CONFIG", &config);
    let with_flag = log(command);
    assert_eq!(setting(&with_flag, "queue"), "30 source=flag");
    assert_eq!(setting(&with_flag, "exact"), "false source=flag");
    assert_eq!(setting(&with_flag, "deadline"), "2m source=file");
}

#[test]
fn secrets_are_never_told() {
    let place = Place::new();
    let keys = place.file("keys", &format!("# ours\nmary={SECRET}-1\n\n{SECRET}-2\n"));
    let config = place.file("hydit.yaml", &format!("api_key: [\"tom={SECRET}-3\"]\n"));
    let told = log(place.command(&["--api-keys-file", &keys, "--config", &config]));
    assert_eq!(setting(&told, "api_key"), "*** source=file");
    assert!(!told.contains(SECRET), "{told}");

    let twice = format!("{SECRET},ann={SECRET}");
    let refused = log(place.command(&["--api-key", &twice]));
    assert!(refused.contains("--api-key ***,*** (flag): key 2: the same secret"), "{refused}");
    assert!(!refused.contains(SECRET), "{refused}");
    let mut command = place.command(&[]);
    command.env("HYDIT_API_KEY", "mary=tooshort-Aa1");
    let refused = log(command);
    assert!(refused.contains("--api-key *** (HYDIT_API_KEY): key 1: "), "{refused}");
    assert!(!refused.contains("tooshort"), "{refused}");
    let twice = place.file("twice.yaml", &format!("api_key: [\"{SECRET}\"]\napi_kee: 1\n"));
    let refused = log(place.command(&["--config", &twice]));
    assert!(refused.contains("api_kee") && !refused.contains(SECRET), "{refused}");
    let help = command_help();
    assert!(help.contains("HYDIT_API_KEY") && !help.contains(SECRET), "{help}");
}

fn command_help() -> String {
    let mut command = command(&["--help"]);
    let output = command.env("HYDIT_API_KEY", SECRET).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_cannot_be_is_refused_in_one_line_that_names_it() {
    let place = Place::new();
    let other = place.file("file", "");
    let cases: &[(&[&str], &str)] = &[
        (&["--max-answer", "0B"], "--max-answer 0B (flag): expected 1 or more"),
        (&["--queue", "0"], "--queue 0 (flag): expected 1 or more"),
        (&["--threads", "2", "--workers", "3"], "--workers 3 (flag): expected 1 to 2"),
        (&["--deadline", "0s"], "--deadline 0ms (flag): expected more than 0"),
        (&["--cache", "sometimes"], "--cache sometimes (flag): "),
        (&["--cors-origin", "https://a.org/x"], "--cors-origin https://a.org/x (flag): "),
        (&["--log-level", "hydit=loud"], "--log-level hydit=loud (flag): "),
        (&["--log-level", "loud"], "--log-level loud (flag): \"loud\" is no level"),
        (&["--log-level", "hydit=debug, info"], "\" info\" is no level"),
        (&["--data-dir", &other], "not a directory"),
        (&["--allowed-host", "a.org, b.org"], " b.org is not a name without scheme and port"),
        (&["--allowed-host", "a.org:80"], "a.org:80 is not a name without scheme and port"),
        (&["--api-keys-file", &other], "no key in it, which would let anyone in"),
        (&["--listen", "no-such-host.invalid:0"], "no-such-host.invalid is not found"),
        (&["--model", "nowhere/at-all"], "nowhere/at-all is not a directory"),
        (&["--model", "a b=nowhere"], "a model's name is 1 to 96 of"),
        (&["--model-alias", "a=b"], "--model-alias a=b (flag): a=b: there is no --model b"),
        (&["--allowed-host", "a:80"], "--allowed-host a:80 (flag): a:80 is not a name without"),
        (&["--listen", "0.0.0.0:0"], "--listen 0.0.0.0:0 (flag): reaches beyond this machine"),
        (&["--api-keys-file", "nowhere"], "--api-keys-file nowhere (flag): No such file"),
        (&["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
    ];
    for (flags, expected) in cases {
        let mut command = command(&[]);
        if !flags.contains(&"--model") {
            command.arg("--model").arg(place.path());
        }
        command.args(*flags);
        let told = log(command);
        assert!(told.starts_with("error: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains(expected), "{flags:?}: {told}");
    }
    let none = log(command(&[]));
    assert!(none.contains("--model - (default): expected an artifact folder"), "{none}");
}

#[test]
fn the_file_is_read_strictly() {
    let place = Place::new();
    let cases = [
        ("queue: 1\nqueu: 3\n", ["line 2", "queu"]),
        ("queue: many\n", ["line 1", "column 8"]),
        ("queue: 1\nqueue: 2\n", ["line 2", "queue"]),
        ("deadline: 10\n", ["line 1", "such as 30s"]),
        ("log: loud\n", ["line 1", "loud"]),
    ];
    for (text, expected) in cases {
        let config = place.file("hydit.yaml", text);
        let told = log(place.command(&["--config", &config]));
        for words in expected {
            assert!(told.contains(words), "{text}: {words}: {told}");
        }
        assert!(told.starts_with("error: --config ") && told.lines().count() == 1, "{told}");
    }
}

/// Runs it; it must have failed over its arguments and said so in a line.
fn misused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: HYDIT_") && text.trim_end().lines().count() == 1, "{text}");
    text
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let place = Place::new();
    let mut all = place.command(&[]);
    for name in ["THREADS", "DEADLINE", "MAX_MEMORY", "EXACT", "LOG", "CONFIG", "DATA_DIR", "CACHE"]
    {
        all.env(format!("HYDIT_{name}"), "");
    }
    all.env("HYDIT_MODEL", "").env("HYDIT_ALLOWED_HOST", "").env("HYDIT_LISTEN", "");
    let told = log(all);
    assert!(!told.contains("source=environment"), "{told}");
    assert_eq!(setting(&told, "deadline"), "10m source=default");

    for name in ["HYDIT_API_KEY", "HYDIT_API_KEYS_FILE"] {
        let mut command = place.command(&[]);
        command.env(name, "");
        let told = misused(command);
        assert!(told.contains(name) && told.contains("would let anyone in"), "{told}");
        // The flag has overruled it.
        let mut command = place.command(&["--api-keys-file", "nowhere", "--api-key", SECRET]);
        command.env(name, "");
        assert!(log(command).contains("--api-keys-file nowhere (flag): No such file"));
    }
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let place = Place::new();
    for (name, value, expected) in [
        ("HYDIT_THREADS", "four", "invalid value 'four' for '--threads <N>': expected a whole"),
        ("HYDIT_THREADS", "-1", "expected a whole number of 0 or more"),
        ("HYDIT_THREADS", "\"4\"", "its value is in quotes"),
        ("HYDIT_DATA_DIR", "'data'", "its value is in quotes"),
        ("HYDIT_DATA_DIR", "data\r", "begins or ends with white space"),
        ("HYDIT_DATA_DIR", " data", "begins or ends with white space"),
        ("HYDIT_MODEL", "emoji\n", "begins or ends with white space"),
        ("HYDIT_MODEL", "a\tb", "has a control character in it"),
        ("HYDIT_DEADLINE", "10", "such as 30s"),
        ("HYDIT_EXACT", "perhaps", "invalid value 'perhaps' for '--exact"),
        ("HYDIT_BACKEND", "onnx", "[possible values: auto, ort, tract, triton]"),
        ("HYDIT_LISTEN", "localhost", "expected an address or the name of a host, and a port"),
        ("HYDIT_LISTEN", "http://localhost:80", "expected an address or the name of a host"),
        ("HYDIT_CONFIG", "\"hydit.yaml\"", "its value is in quotes"),
        ("HYDIT_API_KEY", "\"0123456789abcdef\"", "its value is in quotes"),
    ] {
        let mut command = command(&["--model"]);
        command.arg(place.path()).env(name, value);
        if name == "HYDIT_MODEL" {
            command = self::command(&[]);
            command.env(name, value);
        }
        let told = misused(command);
        assert!(told.starts_with(&format!("error: {name}: ")), "{told}");
        assert!(told.contains(expected) && !told.contains("0123456789abcdef"), "{told}");
    }
    let mut odd = place.command(&[]);
    odd.env("HYDIT_DATA_DIR", OsStr::from_bytes(b"na\xffme"));
    assert!(misused(odd).contains("HYDIT_DATA_DIR: its value is not UTF-8"));
    // Only the command that would read it tells of it.
    let mut plan = Command::new(env!("CARGO_BIN_EXE_hydit-serve"));
    plan.args(["plan", "--model"]).arg(model()).env("HYDIT_THREADS", "four");
    assert!(plan.output().expect("it starts").status.success());
}

#[test]
fn a_setting_without_a_value_counts_as_not_named_unless_it_is_a_secret() {
    let place = Place::new();
    let config = place.file("hydit.yaml", "queue:\nthreads: ~\nworkers: 1\n");
    let told = log(place.command(&["--config", &config]));
    assert_eq!(setting(&told, "queue"), "64 source=default");
    assert_eq!(setting(&told, "workers"), "1 source=file");
    for (text, expected) in [
        ("api_keys_file:\n", "api_keys_file: it is empty, which would let anyone in"),
        ("api_keys_file: \"\"\n", "api_keys_file: it is empty"),
        ("api_key:\n", "api_key: it is empty"),
        ("api_key: []\n", "api_key: it is empty"),
        ("data_dir: \"\"\n", "--data-dir  (file): expected a folder"),
        ("listen: localhost\n", "expected an address or the name of a host"),
        ("queue:\nqueu: 1\n", "queu"),
    ] {
        let config = place.file("hydit.yaml", text);
        let mut command = command(&["--config", &config, "--model"]);
        command.arg(place.path());
        let told = log(command);
        assert!(told.starts_with("error: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains(expected), "{text}: {told}");
    }
}
