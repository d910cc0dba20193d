//! The figures of every image, as comma-separated values (RFC 4180).

use hydit::eval::compare::Comparison;

use super::Report;

const HEADER: &str =
    "prompt,seed,sampler,steps,policy,core_runs,speed_up,seconds,psnr,ssim,latent_error\n";

/// Writes a line for each prompt, contender and seed. PSNR is empty when the images are equal.
pub fn csv(report: &Report) -> String {
    let mut out = HEADER.to_string();
    for sample in &report.samples {
        let Comparison { psnr, ssim, latent_error } = sample.to_uncached;
        let psnr = psnr.is_finite().then_some(psnr as f32);
        let fields = [
            quoted(&report.prompts[sample.prompt]),
            sample.seed.to_string(),
            report.request.sampler.to_string(),
            sample.steps.to_string(),
            quoted(&report.contenders[sample.contender].to_string()),
            sample.refreshes.to_string(),
            (sample.speed_up as f32).to_string(), // in the fewest digits
            (sample.seconds as f32).to_string(),
            psnr.map_or(String::new(), |psnr| psnr.to_string()),
            (ssim as f32).to_string(),
            (latent_error as f32).to_string(),
        ];
        out += &fields.join(",");
        out.push('\n');
    }
    out
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_string()
    }
}
