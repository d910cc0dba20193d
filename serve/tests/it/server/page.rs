//! The page, and the capabilities that it is made of.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use ureq::http::Request;

use super::harness::{Answer, Server, agent, command, model};

const KEY: &str = "0123456789abcdef-Mary";

fn get(server: &Server, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(server.at(path));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = agent().run(request.body(()).expect("a request"));
    Answer::of(answer.unwrap_or_else(|error| panic!("{path}: {error}")))
}

#[test]
fn the_page_needs_no_key_and_lets_nothing_of_others_run() {
    let server = Server::start(&["--api-key", KEY]);
    for (path, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(&server, path, &[]);
        assert_eq!((answer.status, answer.header("content-type")), (200, media), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-cache");
        let etag = answer.header("etag");
        let again = get(&server, path, &[("if-none-match", &format!("\"other\", {etag}"))]);
        assert_eq!((again.status, again.text().len()), (304, 0), "{path}");
        assert_eq!(get(&server, path, &[("if-none-match", "\"other\"")]).status, 200);
        assert_eq!(get(&server, path, &[("host", "evil.example")]).status, 421, "{path}");
        let packed = get(&server, path, &[("accept-encoding", "br, gzip;q=0.5")]);
        assert_eq!((packed.header("content-encoding"), packed.header("etag")), ("gzip", etag));
        assert_eq!(
            (&packed.body[..2], packed.header("vary")),
            (&[0x1f, 0x8b][..], "accept-encoding")
        );
        let plain = get(&server, path, &[("accept-encoding", "gzip;q=0")]);
        assert_eq!(
            (plain.headers.get("content-encoding"), &plain.body),
            (None, &answer.body),
            "{path}"
        );
    }
    for path in ["/page", "/page/", "/page/../v1/jobs", "/page/main.js/", "/page/nothing.js", "//"]
    {
        assert_eq!(get(&server, path, &[]).status, 401, "{path}");
    }
    let bearer = format!("Bearer {KEY}");
    let missing = get(&server, "/page/nothing.js", &[("authorization", &bearer)]);
    assert_eq!((missing.status, missing.code().as_str()), (404, "not_found"));
    assert_eq!(get(&server, "/v1/capabilities", &[]).status, 401);
    assert_eq!(get(&server, "/v1/capabilities", &[("authorization", &bearer)]).status, 200);
}

/// A folder with the files of the small model's export, and its calibrations.
fn calibrated(folder: &Path) {
    let copied = Command::new("cp").arg("-r").arg(model()).arg(folder).status();
    assert!(copied.expect("cp runs").success());
    let text = |steps: usize, more: &str| {
        format!(
            "sampler: dpmms\nspacing: linspace\nsteps: {steps}\n{more}schedules:\n\
             - refresh: [0, 2, 4]\n  measured: {{psnr: 41.5, psnr_p10: 38.25, ssim: 0.99, latent_error: 0.1}}\n\
             - refresh: [0]\n  measured: {{psnr: 21.5, psnr_p10: 18.25, ssim: 0.9, latent_error: 0.3}}\n\
             - refresh: [0, 1]\n"
        )
    };
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(format!("calibration-{name}.yaml")), text).expect("a file");
    };
    write("dpmms-linspace-6", &text(6, "guidance_scale: 5\n"));
    write("dpmms-linspace-7", &text(7, "manifest_sha256: of another export\n"));
    write("dpmms-linspace-8", "steps: [\n");
    write("dpmms-linspace-08", &text(8, ""));
}

#[test]
fn capabilities_tell_what_can_be_asked_for_and_what_calibrations_expect() {
    let folder = tempfile::tempdir().expect("a folder");
    let export = folder.path().join("small");
    calibrated(&export);
    let model = format!("small={}", export.display());
    let mut serve = command(&["--listen", "127.0.0.1:0", "--model", &model, "--max-steps", "40"]);
    serve.args(["--cache", "usual", "--keep-age", "2h", "--model-alias", "b=small,a=small"]);
    serve.arg("--data-dir").arg(folder.path().join("data"));
    let server = Server::spawn(serve, folder.path());

    let told = server.get("/v1/capabilities").json();
    assert_eq!(told["limits"]["steps"], 40);
    assert_eq!(told["keep"]["seconds"], 7200.0);
    let [small] = told["models"].as_array().expect("models").as_slice() else { panic!("{told}") };
    assert_eq!((&small["id"], &small["aliases"]), (&json!("small"), &json!(["a", "b"])));
    let defaults = &small["defaults"];
    assert_eq!((&defaults["steps"], &defaults["cache"]), (&json!(40), &json!("usual")));
    assert_eq!((&defaults["size"], &small["size_multiple"]), (&json!("128x128"), &json!(16)));
    let dpmms = json!({
        "name": "dpmms", "spacing": "linspace", "spacings": ["leading", "linspace", "trailing", "karras"],
    });
    assert_eq!(small["samplers"][2], dpmms);
    assert_eq!((&told["loras"], &small["lora_slots"]), (&json!([]), &Value::Null));
    assert_eq!(small["image_to_image"], json!(true));
    let cost = small["cached_step_cost"].as_f64().expect("a number");
    assert!((0.1..0.3).contains(&cost), "2 of 12 blocks and the final layer: {cost}");

    let calibrations = small["calibrations"].as_array().expect("a list");
    let steps: Vec<&Value> = calibrations.iter().map(|one| &one["steps"]).collect();
    assert_eq!(steps, [6, 7, 8]);
    let schedules = json!([
        { "core_runs": 1, "psnr": 21.5, "psnr_p10": 18.25, "ssim": 0.9 },
        { "core_runs": 3, "psnr": 41.5, "psnr_p10": 38.25, "ssim": 0.99 },
    ]);
    assert_eq!(calibrations[0]["schedules"], schedules);
    assert_eq!(
        (&calibrations[0]["guidance"], &calibrations[0]["error"]),
        (&json!(5.0), &Value::Null)
    );
    for (broken, words) in [(&calibrations[1], "of another export"), (&calibrations[2], "DIR/")] {
        assert_eq!(broken["schedules"], json!([]));
        let error = broken["error"].as_str().expect("a text");
        assert!(error.contains(words) && !error.contains("small"), "{error}");
    }
}
