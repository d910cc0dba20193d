//! Files of an artifact folder, and images that a request is read from.

use std::sync::LazyLock;

use hydit::artifacts::Artifacts;
use hydit::cache::{PolicyInput, Schedules};
use hydit::image::decode_png;
use hydit::request::Parameters;
use hydit::sampler::{SamplerKind, Spacing};
use hydit_graphs::{Manifest, Sizes};
use hydit_testing::emoji;

use crate::scratch::FOLDER;

static MODEL: LazyLock<Artifacts> =
    LazyLock::new(|| Artifacts::open(&emoji::artifacts()).expect("an export"));

/// A manifest: read, used as `plan` and `inspect` use it, and written again.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(manifest) = Manifest::from_yaml(text) else { return };
    let sizes = Sizes {
        batch: 2,
        grid_height: 80,
        grid_width: 80,
        height: 160,
        width: 160,
        image_tokens: 8,
        ..Sizes::default()
    };
    for graph in &manifest.graphs {
        let _ = manifest.flops(&graph.name, &sizes);
    }
    Manifest::from_yaml(&manifest.to_yaml()).expect("what was written can be read");
    FOLDER.with(|folder| {
        folder.write("manifest.yaml", bytes);
        if let Ok(artifacts) = Artifacts::open(folder.path())
            && let Ok(request) = hydit::Request::new(&artifacts.manifest, "a cat")
        {
            let _ = request.check(&artifacts);
        }
    });
}

/// A schedule file.
pub fn schedule(bytes: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.write("schedule.yaml", bytes);
        let timesteps: Vec<f32> = (0..25u8).rev().map(|step| 40.0 * f32::from(step)).collect();
        let input = PolicyInput {
            timesteps: &timesteps,
            skipped: 0,
            sampler: SamplerKind::Dpmms,
            spacing: Spacing::Leading,
            guidance_scale: 5.0,
            folder: folder.path(),
            manifest_sha256: &MODEL.hash,
        };
        if let Ok(schedules) = Schedules::read(&path, &input) {
            for schedule in &schedules.schedules {
                let _ = schedule.plan(timesteps.len());
            }
            let _ = schedules.to_yaml();
        }
    });
}

/// A PNG, and the request in its texts. What does not begin as a PNG is a chunk of text in one, whose
/// kind the first byte chooses: checksums would keep mutations out of it otherwise.
pub fn png(bytes: &[u8]) {
    let Ok((_, texts)) = (match bytes.split_first() {
        Some((&which, text)) if which < b' ' => decode_png(&with_text(which, text)),
        _ => decode_png(bytes),
    }) else {
        return;
    };
    if let Ok(parameters) = Parameters::from_texts(&texts) {
        let _ = parameters.request.check(&MODEL);
    }
}

/// A PNG of one pixel with a chunk of text.
fn with_text(which: u8, text: &[u8]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(data);
        let mut sum = crc32fast::Hasher::new();
        sum.update(kind);
        sum.update(data);
        png.extend(sum.finalize().to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
    chunk([b"tEXt", b"zTXt", b"iTXt"][usize::from(which) % 3], text);
    // One row of one pixel, stored.
    chunk(b"IDAT", &[0x78, 1, 1, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 4, 0, 1]);
    chunk(b"IEND", &[]);
    png
}
