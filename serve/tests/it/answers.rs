//! What `hydit-serve` answers to what it cannot take: things of every kind under every flag that names
//! a file, and texts that shells, compose files and unit files make of the values of settings.

use hydit_testing::answers::{Answers, HERE, Things, noted};
use hydit_testing::emoji;

use crate::program::{command, plain};

/// An address that no machine has: what comes to it has taken everything else.
const NOWHERE: &str = "192.0.2.1:1";

/// Answers of the small model's export, beside `things`.
fn answers(things: &Things) -> Answers {
    let mut answers = Answers::default();
    answers.know(things.path(), "DIR");
    answers.know(&emoji::artifacts(), "MODEL");
    answers
}

#[test]
fn whatever_is_read_is_taken_or_refused_in_a_line() {
    let (things, model) = (Things::new(), emoji::artifacts());
    let model = plain(&model);
    let generate = ["generate", "--model", model, "--prompt", "a", "--infer-steps", "1"];
    let draw = |more: &[&'static str]| [&generate[..], &["-o", "/dev/null"], more].concat();
    let mut answers = answers(&things);
    for words in [
        vec!["generate", "--model", HERE, "--prompt", "a", "-o", "/dev/null"],
        vec!["generate", "--model", model, "--from", HERE, "-o", "/dev/null"],
        draw(&["--init-image", HERE]),
        draw(&["--init-image", HERE, "--mask", HERE]),
        draw(&["--lora-dir", HERE, "--lora", "a"]),
        draw(&["--cache-policy", "schedule:{}"]),
        draw(&["--provider", "mine", "--ep-library", HERE]),
        vec!["plan", "--model", HERE],
        vec!["plan", "--model", model, "--cache-policy", "schedule:{}"],
        vec!["sheet", "--model", model, "--prompts", HERE, "--policy", "off", "-o", "/dev/null"],
        vec!["calibrate", "--model", model, "--prompts", HERE, "-o", "/dev/null"],
        vec!["bench", "--model", HERE],
        vec!["info", HERE],
        vec!["verify", HERE],
        vec!["serve", "--model", HERE, "--listen", "127.0.0.1:0"],
        vec!["serve", "--model", "/none", "--config", HERE],
        vec!["serve", "--model", model, "--api-keys-file", HERE, "--listen", "127.0.0.1:0"],
        vec![
            "serve",
            "--model",
            model,
            "--lora-dir",
            HERE,
            "--allow-anonymous",
            "--listen",
            NOWHERE,
        ],
    ] {
        answers.each(|| command(&[]), &words, &things.to_read());
    }
    answers.compare(&noted(env!("CARGO_MANIFEST_DIR"), "read.txt"));
}

#[test]
fn whatever_is_written_is_taken_or_refused_in_a_line() {
    let (things, model) = (Things::new(), emoji::artifacts());
    let model = plain(&model);
    let prompts = things.path().join("prompts");
    std::fs::write(&prompts, "a cat\na dog\n").expect("a file");
    let one = ["--model", model, "--infer-steps", "1", "--backend", "ort"];
    let sheet = ["--prompt", "a", "--policy", "off", "-o", "/dev/null"];
    let mut answers = answers(&things);
    for words in [
        [&["generate"][..], &one, &["--prompt", "a", "-o", HERE]].concat(),
        [&["generate"][..], &one, &["--prompt", "a", "--compare", "--use-cache", "-o", HERE]]
            .concat(),
        [&["plan"][..], &one[..4], &["--prompt", "a", "--tensors", HERE]].concat(),
        [&["sheet"][..], &one, &["--prompt", "a", "--policy", "off", "-o", HERE]].concat(),
        [&["sheet"][..], &one, &sheet, &["--csv", HERE]].concat(),
        [&["sheet"][..], &one, &sheet, &["--plot", HERE]].concat(),
        [&["calibrate"][..], &one, &["--runs", "1", "--prompts", plain(&prompts), "-o", HERE]]
            .concat(),
        [&["bench"][..], &one, &["--rounds", "1", "--policy", "off", "--json", HERE]].concat(),
        vec![
            "serve",
            "--model",
            model,
            "--data-dir",
            HERE,
            "--allow-anonymous",
            "--listen",
            NOWHERE,
        ],
    ] {
        answers.each(|| command(&[]), &words, &things.to_write());
    }
    answers.compare(&noted(env!("CARGO_MANIFEST_DIR"), "written.txt"));
}

/// Values as they arrive when something on the way has quoted, cut or misread them.
const MANGLED: [(&str, &str); 12] = [
    ("nothing", ""),
    ("a space", " "),
    ("quoted", "\"1\""),
    ("single quotes", "'1'"),
    ("a comment", "1 # one"),
    ("a line break", "1\n"),
    ("a variable", "${HYDIT_VALUE}"),
    ("two", "1,2"),
    ("a comma at the end", "1,"),
    ("a name before it", "value=1"),
    ("a yes", "yes"),
    ("more than any number", "18446744073709551616"),
];

#[test]
fn mangled_settings_are_taken_or_refused_by_name() {
    let (things, model) = (Things::new(), emoji::artifacts());
    let model = plain(&model);
    let mut answers = answers(&things);
    for setting in [
        "MODEL",
        "MODEL_ALIAS",
        "LORA_DIR",
        "LISTEN",
        "GRPC_LISTEN",
        "BACKEND",
        "TRITON",
        "PROVIDER",
        "THREADS",
        "MAX_MEMORY",
        "EXACT",
        "QUEUE",
        "DEADLINE",
        "API_KEY",
        "ALLOWED_HOST",
        "CORS_ORIGIN",
        "CACHE",
        "MAX_PIXELS",
        "MAX_BODY",
        "KEEP_AGE",
        "LOG",
        "LOG_LEVEL",
    ] {
        let name = format!("HYDIT_{setting}");
        answers.section(&format!("{name}=... hydit-serve serve"));
        for (what, value) in MANGLED {
            let mut serve = command(&["serve", "--allow-anonymous"]);
            // Without an address it would listen at its own.
            match setting {
                "LISTEN" => serve.args(["--model", "none"]),
                "MODEL" => serve.args(["--listen", NOWHERE]),
                _ => serve.args(["--model", model, "--listen", NOWHERE]),
            };
            serve.env(&name, value).current_dir(things.path());
            answers.note(what, serve);
        }
    }
    answers.compare(&noted(env!("CARGO_MANIFEST_DIR"), "settings.txt"));
}
