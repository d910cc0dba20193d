//! Forged schedules and calibrations.

use std::fs;
use std::os::unix::fs::symlink;

use hydit::Request;
use hydit::artifacts::Artifacts;
use hydit::cache::CachePolicy;
use hydit_testing::emoji;
use hydit_testing::hostile::{check_message, not_the_file};
use serde_json::json;

use super::{Place, refusal};

#[test]
fn schedules_and_calibrations_that_do_not_fit_are_refused_by_name() {
    let place = Place::new();
    let artifacts = Artifacts::open(place.folder.path()).expect("a manifest");
    let request = Request { steps: 10, ..emoji::cat(&artifacts.manifest, 10) };
    let good = json!({
        "sampler": request.sampler, "spacing": request.spacing, "steps": 10,
        "made_with": {}, "schedules": [{
            "refresh": [0, 3, 6], "forecast": { "7": [0.5, 0.5] },
            "measured": { "psnr": 40.0, "psnr_p10": 39.0, "ssim": 0.9, "latent_error": 0.1 }
        }]
    });
    let mut cases: Vec<(String, Vec<u8>)> = not_the_file(good.to_string().as_bytes())
        .into_iter()
        .map(|(case, bytes)| (case.to_string(), bytes))
        .collect();
    for (pointer, value) in [
        ("/steps", json!(9)),
        ("/steps", json!(u64::MAX)),
        ("/steps", json!(-1)),
        ("/sampler", json!("heun")),
        ("/sampler", json!("dpmms")),
        ("/spacing", json!("trailing")),
        ("/manifest_sha256", json!("00")),
        ("/guidance_scale", json!("much")),
        ("/schedules", json!([])),
        ("/schedules", json!({})),
        ("/schedules/0/refresh", json!([])),
        ("/schedules/0/refresh", json!([1, 2])),
        ("/schedules/0/refresh", json!([0, 3, 3])),
        ("/schedules/0/refresh", json!([0, 6, 3])),
        ("/schedules/0/refresh", json!([0, 10])),
        ("/schedules/0/refresh", json!([0, u64::MAX])),
        ("/schedules/0/refresh", json!([0, -1])),
        ("/schedules/0/forecast", json!({ "0": [0.5, 0.5] })),
        ("/schedules/0/forecast", json!({ "3": [0.5, 0.25, 0.25] })),
        ("/schedules/0/forecast", json!({ "11": [1.0] })),
        ("/schedules/0/forecast", json!({ "7": [] })),
        ("/schedules/0/forecast", json!({ "7": [9.0, 9.0] })),
        ("/schedules/0/forecast", json!({ "7": [0.25, 0.25, 0.25, 0.25] })),
        ("/schedules/0/forecast", json!({ "1": [0.5, 0.5] })),
        ("/schedules/0/forecast", json!({ "7": [1e300, -1e300] })),
        ("/schedules/0/measured", json!({ "psnr": 1.0 })),
        ("/colour", json!(1)),
    ] {
        let mut forged = good.clone();
        match forged.pointer_mut(pointer) {
            Some(field) => *field = value.clone(),
            None => forged[&pointer[1..]] = value.clone(),
        }
        cases.push((format!("{pointer} = {value}"), forged.to_string().into_bytes()));
    }
    let calibration = format!("calibration-{}-{}-10.yaml", request.sampler, request.spacing);
    for name in ["schedule.yaml", &calibration] {
        let path = place.file(name);
        let policy = if name == "schedule.yaml" {
            format!("schedule:{}", path.display())
        } else {
            "auto:3runs".to_string()
        };
        let policy: CachePolicy = policy.parse().expect("a policy");
        let request = Request { cache_policy: policy, ..request.clone() };
        for (case, bytes) in &cases {
            fs::write(&path, bytes).expect("written");
            let error = refusal(case, request.check(&artifacts));
            check_message(case, &error, &["cache policy "]);
        }
        fs::write(&path, good.to_string()).expect("written");
        request.check(&artifacts).expect("the schedule itself is good");
        fs::remove_file(&path).expect("removed");
        symlink("/dev/zero", &path).expect("a link");
        let error = refusal("a device", request.check(&artifacts));
        check_message("a device", &error, &["a device; expected a regular file"]);
    }
}
