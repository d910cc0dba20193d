//! Calibrations that were made for other pictures than the one that follows them.

use anyhow::Result;
use hydit::artifacts::Artifacts;
use hydit::control::Preprocess;
use hydit::lora::LoraChoice;
use hydit::{CheckedRequest, Control, Request};
use hydit_terminal::note;

/// Says where the cache policy of `request` was calibrated with other LoRAs, other scales of PAG,
/// other ControlNets or another weight of the image prompt: how good its pictures are is not known
/// then. Images may be others than the calibration's, as prompts may.
///
/// # Errors
/// When the calibration cannot be read any more.
pub fn tell_differences(request: &CheckedRequest, artifacts: &Artifacts) -> Result<()> {
    let Some(made) = request.calibration(artifacts)? else { return Ok(()) };
    let Request { cache_policy, loras, controls, image_prompt, .. } = &**request;
    let tell = |made: &str, asked: &str| {
        note(format_args!(
            "note: {cache_policy} was calibrated with {made}, and this is drawn with {asked}: \
             generate --compare shows what it costs"
        ));
    };
    if content(&made.loras) != content(loras) {
        tell(&named_loras(&made.loras), &named_loras(loras));
    }
    for (flag, made, asked) in [
        ("--pag-scale", made.pag_scale, request.pag_scale),
        ("--pag-adaptive-scale", made.pag_adaptive_scale, request.pag_adaptive_scale),
    ] {
        if made != asked {
            tell(&format!("{flag} {made}"), &asked.to_string());
        }
    }
    let nets = [named_nets(&made.controls), named_nets(controls)];
    let weights = [&made.image_prompt, image_prompt].map(|prompt| match prompt {
        None => "no image prompt".to_string(),
        Some(prompt) => format!("an image prompt of weight {}", prompt.weight),
    });
    for [made, asked] in [nets, weights] {
        if made != asked {
            tell(&made, &asked);
        }
    }
    Ok(())
}

/// The files of `loras` and their weights, whatever they are called and in which order.
fn content(loras: &[LoraChoice]) -> Vec<(Option<&str>, u32)> {
    let mut content: Vec<_> =
        loras.iter().map(|lora| (lora.sha256.as_deref(), lora.weight.to_bits())).collect();
    content.sort_unstable();
    content
}

fn named_loras(loras: &[LoraChoice]) -> String {
    named("LoRA", loras.iter().map(LoraChoice::to_string).collect())
}

/// All that counts of `nets` but for their images, in one order.
fn named_nets(nets: &[Control]) -> String {
    let name = |net: &Control| match net.preprocess {
        Preprocess::None => net.to_string(),
        preprocess => format!("{net} by {preprocess}"),
    };
    let mut names: Vec<String> = nets.iter().map(name).collect();
    names.sort_unstable();
    named("ControlNet", names)
}

fn named(what: &str, names: Vec<String>) -> String {
    if names.is_empty() {
        format!("no {what}")
    } else {
        format!("the {what} {}", names.join(" and "))
    }
}
