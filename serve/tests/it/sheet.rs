//! `hydit-serve sheet` as a person runs it.

use std::path::Path;

use hydit::image::read_png;
use serde_json::Value;

use crate::program::{Scratch, serve, text};

const STEPS: &str = "6";
const PROMPTS: &str = "# two languages\n蓝色背景上的猫\n\n  a cat, \"red\"\n";

impl Scratch {
    fn holds(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::write(&path, bytes).expect("it can be written");
        path
    }
}

/// Fields of each line; none of them holds a line feed.
fn fields(csv: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for line in csv.lines() {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        for c in line.replace("\"\"", "\u{1}").chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => fields.push(String::new()),
                c => fields.last_mut().expect("one field").push(c),
            }
        }
        lines.push(fields.iter().map(|field| field.replace('\u{1}', "\"")).collect());
    }
    lines
}

#[test]
fn a_sheet_shows_and_counts_every_picture() {
    let scratch = Scratch::new();
    let prompts = scratch.holds("prompts.txt", PROMPTS);
    let (sheet, csv) = (scratch.file("sheet.png"), scratch.file("figures.csv"));
    let (svg, png) = (scratch.file("plot.svg"), scratch.file("plot.png"));
    let draw = |plot: &str, more: &[&str]| {
        let start = ["sheet", "--model", &scratch.model, "--backend", "ort", "--prompts", &prompts];
        let what = ["--infer-steps", STEPS, "--policy", "N1,N3-1000-0", "--fewer-steps", "4"];
        let files = ["-o", &sheet, "--csv", &csv, "--plot", plot];
        let output = serve(&[&start[..], &what, &files, more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let told = draw(&svg, &["--seeds", "2", "--seed", "7", "--json"]);

    let told: Value = serde_json::from_str(&told).expect("JSON on standard output");
    assert_eq!(told["pictures"], 4);
    assert_eq!(told["policies"].as_array().map(Vec::len), Some(3));
    assert_eq!(told["policies"][0]["psnr"], Value::Null);
    let [slow, fast] = [1, 2].map(|i| told["policies"][i]["speed_up"].as_f64().expect("a number"));
    assert!(slow > 1.5 && fast == 1.5, "{slow} {fast}: 2 of 6 core runs, 4 of 6 steps");

    let lines = fields(&std::fs::read_to_string(&csv).expect("a file"));
    let header =
        "prompt,seed,sampler,steps,policy,core_runs,speed_up,seconds,psnr,ssim,latent_error";
    assert_eq!(lines[0].join(","), header);
    let named = |line: &Vec<String>| line[..2].join("|") + "|" + &line[3..6].join("|");
    let named: Vec<String> = lines[1..].iter().map(named).collect();
    let mut expected = Vec::new();
    for prompt in ["蓝色背景上的猫", "a cat, \"red\""] {
        for contender in ["6|N1-700-50|6", "6|N3-1000-0|2", "4|off, 4 steps|4"] {
            expected.extend([7, 8].map(|seed| format!("{prompt}|{seed}|{contender}")));
        }
    }
    assert_eq!(named, expected);
    for line in &lines[1..] {
        let number = |i: usize| line[i].parse::<f64>().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        match line[4].as_str() {
            "N1-700-50" => assert_eq!(line[8..], ["", "1", "0"]),
            _ => {
                assert!(number(8) > 5.0 && number(8) < 60.0, "{line:?}");
                assert!(number(9) < 1.0 && number(10) > 0.0 && number(10) < 2.0, "{line:?}");
            }
        }
        assert!(number(7) > 0.0, "{line:?}");
    }

    let (page, _) = read_png(Path::new(&sheet)).expect("a picture");
    // Four columns of 256 pixels and two rows of them, with what is written around.
    assert_eq!((page.width, page.height), (1523, 1090));
    let drawing = std::fs::read_to_string(&svg).expect("a file");
    for named in ["N-1000-0", "fewer steps", "4 steps", "emoji, ddpm, 6 steps", "4 images"] {
        assert!(drawing.contains(named), "{named}: {drawing}");
    }
    assert!(drawing.contains(">N</text>"), "the family of N1: {drawing}");

    let shown = draw(&png, &["--show", "1"]);
    assert!(shown.contains("| N3-1000-0    |    2 of 6 |"), "{shown}");
    assert!(shown.contains("|    equal |"), "{shown}");
    let (plot, _) = read_png(Path::new(&png)).expect("a picture");
    assert_eq!((plot.width, plot.height), (1920, 1240));
    let (page, _) = read_png(Path::new(&sheet)).expect("a picture");
    assert_eq!((page.width, page.height), (1523, 712), "one row");
}

/// What `sheet` writes for these prompts into a file with this ending.
fn sheet(scratch: &Scratch, prompts: &[&str], name: &str) -> Vec<u8> {
    let path = scratch.file(name);
    let mut flags = vec!["sheet", "--model", &scratch.model, "--backend", "ort", "-o", &path];
    flags.extend(["--infer-steps", STEPS, "--policy", "N3-1000-0", "--fewer-steps", "4"]);
    prompts.iter().for_each(|prompt| flags.extend(["--prompt", prompt]));
    let output = serve(&flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    std::fs::read(&path).expect("a file")
}

#[test]
fn a_page_holds_the_sheet_the_plot_and_the_figures_and_loads_nothing() {
    let scratch = Scratch::new();
    let prompts = ["蓝色背景上的猫", "</text><script>alert(1)</script>\" onload='x' & co"];
    let page = String::from_utf8(sheet(&scratch, &prompts, "sheet.html")).expect("UTF-8");
    let drawing = String::from_utf8(sheet(&scratch, &prompts, "sheet.svg")).expect("UTF-8");
    assert!(page.contains(&drawing), "the page holds the very SVG of the file");

    let urls = page.split("://").count() - 1;
    assert_eq!(urls, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    let sources: Vec<&str> = page.split("href=\"").skip(1).map(|after| &after[..6]).collect();
    assert!(sources.iter().all(|url| url.starts_with('#') || *url == "data:i"), "{sources:?}");
    assert_eq!(sources.iter().filter(|url| **url == "data:i").count(), 6, "each image once");
    assert!(!page.contains("<script") && !page.contains("onload='"));
    assert!(page.contains("&lt;/text&gt;&lt;script&gt;alert(1)"));

    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert!(page.contains("xml:lang=\"zh\"") && page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("<title>蓝色背景上的猫: N3-1000-0, "), "images say what they show");
    assert!(page.contains("<th scope=\"row\" role=\"rowheader\">N3-1000-0</th>"));
    assert!(page.contains("fewer steps</text>"), "the plot");
    assert!(page.contains("@font-face{font-family:hydit-sheet;src:url(data:font/woff;base64,"));

    let latin = sheet(&scratch, &["a cat"], "latin.html");
    assert!(!text(&latin).contains("@font-face"), "a page without Chinese needs no font");
    assert!(latin.len() + 1_000_000 < page.len());
}

#[test]
fn what_cannot_be_judged_is_said_before_any_work() {
    let scratch = Scratch::new();
    let empty = scratch.holds("empty.txt", "# nothing\n\n");
    let latin = scratch.holds("latin.txt", b"a cat\ncaf\xe9\n");
    let (missing, sheet) = (scratch.file("none.txt"), scratch.file("sheet.png"));
    let (plot, nowhere) = (scratch.file("plot.pdf"), scratch.file("missing/figures.csv"));
    let start = ["sheet", "--model", &scratch.model, "--infer-steps", STEPS, "-o", &sheet];
    let cat = ["--prompt", "a cat", "--policy", "N2"];
    let cases: [(&[&str], &str); 10] = [
        (&["--prompts", &missing, "--policy", "N2"], "--prompts: "),
        (&["--prompts", &missing, "--policy", "N2"], "none.txt"),
        (&["--prompts", &empty, "--policy", "N2"], "empty.txt: no prompt"),
        (&["--prompts", &latin, "--policy", "N2"], "latin.txt: line 2 is not UTF-8"),
        (&[&cat[..], &["--policy", "N0"]].concat(), "N0"),
        (
            &[&cat[..], &["--fewer-steps", "6"]].concat(),
            "--fewer-steps: 6 steps are not fewer than the 6",
        ),
        (&[&cat[..], &["--fewer-steps", "0"]].concat(), "off, 0 steps"),
        (&[&cat[..], &["--plot", &plot]].concat(), "plot.pdf must end in .svg or .png"),
        (&[&cat[..], &["--plot", &sheet]].concat(), "name the same file"),
        (&[&cat[..], &["--csv", &nowhere]].concat(), "--csv: cannot write"),
    ];
    for (more, expected) in cases {
        let output = serve(&[&start[..], more].concat());
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{more:?}");
        assert!(error.contains(expected) && !error.contains("panicked"), "{more:?}: {error}");
    }
    assert!(!Path::new(&sheet).exists());
    let pdf = scratch.file("sheet.pdf");
    let output = serve(&[&start[..5], &["-o", &pdf], &cat].concat());
    let error = text(&output.stderr);
    assert!(error.contains("sheet.pdf must end in .html or .png or .svg"), "{error}");
}
