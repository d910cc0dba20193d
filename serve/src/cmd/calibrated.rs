//! Calibrations that were made for other pictures than the one that follows them.

use anyhow::Result;
use hydit::CheckedRequest;
use hydit::artifacts::Artifacts;
use hydit::cache::Schedules;
use hydit::lora::LoraChoice;
use hydit_terminal::note;

/// Says where the cache policy of `request` was calibrated with other LoRAs or another `pag_scale`,
/// without its ControlNets or without its image prompt: how good its pictures are is not known then.
///
/// # Errors
/// When the calibration cannot be read any more.
pub fn tell_differences(request: &CheckedRequest, artifacts: &Artifacts) -> Result<()> {
    let Some(Schedules { loras, pag_scale, .. }) = request.calibration(artifacts)? else {
        return Ok(());
    };
    let policy = &request.cache_policy;
    let tell = |made: &str, asked: &str| {
        note(format_args!(
            "note: {policy} was calibrated with {made}, and this is drawn with {asked}: generate \
             --compare shows what it costs"
        ));
    };
    if content(&loras) != content(&request.loras) {
        tell(&named(&loras), &named(&request.loras));
    }
    if pag_scale != request.pag_scale {
        tell(&format!("--pag-scale {pag_scale}"), &request.pag_scale.to_string());
    }
    for (what, is_asked) in [
        ("no ControlNet", !request.controls.is_empty()),
        ("no image prompt", request.image_prompt.is_some()),
    ] {
        if is_asked {
            tell(what, "one");
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

fn named(loras: &[LoraChoice]) -> String {
    if loras.is_empty() {
        return "no LoRA".to_string();
    }
    let names: Vec<String> = loras.iter().map(LoraChoice::to_string).collect();
    format!("the LoRA {}", names.join(" and "))
}
