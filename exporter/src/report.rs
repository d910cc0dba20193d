//! All that is wrong with a checkpoint's tensors, in one report.

use std::fmt;

/// How many tensors of a kind are named before the rest is only counted.
const SHOWN: usize = 5;

/// What names of tensors tell of a checkpoint that is not of whole weights in a usual form: a part
/// of a name, and what to do.
const CAUSES: [(&str, &str); 9] = [
    (
        ".lora_",
        "a LoRA is in it that is not merged: merge it with peft's merge_and_unload(), or save it alone and \
         give that to --lora",
    ),
    (
        ".base_layer.",
        "it was saved with an adapter around it: merge that first, with peft's merge_and_unload()",
    ),
    ("controlnet_blocks.", "it is a ControlNet, and not the transformer itself"),
    ("after_proj_list.", "it is a ControlNet, and not the transformer itself"),
    (
        "ip_adapter",
        "an IP-Adapter is in it: give that to --ip-adapter, and the transformer without it here",
    ),
    (".SCB", "it is quantized by bitsandbytes: take the checkpoint in half precision"),
    (".quant_map", "it is quantized by bitsandbytes: take the checkpoint in half precision"),
    (".qweight", "it is quantized (GPTQ or AWQ): take the checkpoint in half precision"),
    (".scale_weight", "it is in 8-bit floats: take the checkpoint in half precision"),
];

/// The tensors of a checkpoint that do not fit the graphs. Each line names the component, the
/// tensor and what is wrong.
#[derive(Debug, Default)]
pub struct TensorReport {
    /// Tensors that a graph declares and the checkpoint does not have.
    pub missing: Vec<String>,
    /// Tensors of another shape, or of an element type that cannot be used.
    pub mismatched: Vec<String>,
    /// Tensors that no graph declares, which is worth a warning only.
    pub unused: Vec<String>,
}

impl TensorReport {
    /// Returns the unused tensors if that is all there is.
    ///
    /// # Errors
    /// The report itself, if tensors are missing or mismatched.
    pub fn check(self) -> Result<Vec<String>, TensorReport> {
        if self.missing.is_empty() && self.mismatched.is_empty() {
            Ok(self.unused)
        } else {
            Err(self)
        }
    }

    /// The report with every tensor, where [`Display`](fmt::Display) names the first of a kind.
    pub fn whole(&self) -> String {
        self.lines(true)
    }

    fn lines(&self, all: bool) -> String {
        let (missing, mismatched) = (self.missing.len(), self.mismatched.len());
        let unused = self.unused.len();
        let cause = CAUSES.iter().find(|(part, _)| self.unused.iter().any(|n| n.contains(part)));
        let mut text = match cause {
            Some((_, cause)) => format!("the checkpoint cannot be used: {cause}"),
            None => "the checkpoint does not fit its config: check that it is complete, and that \
                     config.json belongs to it"
                .to_string(),
        };
        text += &format!(
            "\n{missing} tensors are missing, {mismatched} mismatched, {unused} not used:"
        );
        for (kind, names) in [
            ("missing", &self.missing),
            ("mismatched", &self.mismatched),
            ("not used", &self.unused),
        ] {
            for line in first_of(names, all) {
                text += &format!("\n  {kind}: {line}");
            }
        }
        text
    }
}

/// The first few of `names` and how many more there are, or `all` of them.
pub fn first_of(names: &[String], all: bool) -> impl Iterator<Item = String> {
    let shown = if all { names.len() } else { names.len().min(SHOWN) };
    let more = names.len() - shown;
    let rest = (more > 0).then(|| format!("{more} more (--verbose names them)"));
    names[..shown].iter().cloned().chain(rest)
}

impl std::error::Error for TensorReport {}

impl fmt::Display for TensorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(false))
    }
}
