//! `hydit-serve verify --check-finite`: how large the values become, and whether they stay finite.

use anyhow::{Result, bail};
use clap::Args;
use hydit::Request;
use hydit::artifacts::{Artifacts, unfit};
use hydit::eval::finite::{FP16_MAX, Finite, check};
use hydit::runtime::{Backend, BackendChoice, Magnitude, Provider};
use hydit_graphs::Precision;
use hydit_terminal::{plain, say};

/// Steps that are spread over all timesteps, the first and the last among them.
const STEPS: usize = 4;
const PROMPT: &str = "蓝色背景上的猫";

#[derive(Args)]
pub struct CheckFinite {
    /// Draw a picture instead, and print how large the output of every graph and of every block
    /// becomes; fail if one is not finite.
    #[arg(long)]
    pub check_finite: bool,
    /// Prompt of the picture [default: 蓝色背景上的猫, or class 0 of a model that draws classes].
    #[arg(long, value_name = "TEXT", requires = "check_finite")]
    prompt: Option<String>,
    /// Denoising steps of the picture.
    #[arg(long, value_name = "N", requires = "check_finite", default_value_t = STEPS)]
    infer_steps: usize,
    /// Size of the picture in pixels; the model's own if not given.
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"], requires = "check_finite")]
    image_size: Option<Vec<usize>>,
}

impl CheckFinite {
    /// The engine that tells most where none is named: tract for fp16 on a CPU, since ONNX Runtime
    /// computes it in fp32 there.
    pub fn choice(artifacts: &Artifacts) -> BackendChoice {
        let fp16 = artifacts.manifest.precision == Precision::Fp16;
        let honest = fp16 && unfit(artifacts.graph_options(), None).is_none();
        if honest { BackendChoice::Tract } else { BackendChoice::Auto }
    }

    /// Draws with `artifacts` on `backend` and prints the table.
    pub fn run(&self, artifacts: Artifacts, backend: Backend) -> Result<()> {
        let precision = artifacts.manifest.precision;
        let model = &artifacts.manifest.model;
        let usual = model.prompt_or_class(PROMPT);
        let prompt = self.prompt.as_deref().unwrap_or(usual);
        let mut request = Request::new(&artifacts.manifest, prompt)?;
        request.steps = self.infer_steps;
        if let Some([height, width]) = self.image_size.as_deref() {
            (request.height, request.width) = (*height, *width);
        }
        say(format_args!("engine    {}", backend.describe()))?;
        if precision == Precision::Fp16 && backend.ort_provider() == Some(Provider::Cpu) {
            say("note      it computes fp16 in fp32, and rounds only what graphs pass on")?;
        }
        let finite = check(artifacts, backend, &request)?;
        say(table(&finite))?;
        match finite.complaint(precision) {
            Some(complaint) => bail!(complaint),
            None => Ok(say("\nall finite")?),
        }
    }
}

fn table(finite: &Finite) -> String {
    let head = format!(
        "\n{:16} {:8} {:32} {:4} {:>5} {:>10}  of the range of fp16\n",
        "graph", "", "made", "type", "runs", "largest"
    );
    head + &finite.values.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn row(magnitude: &Magnitude) -> String {
    let Magnitude { graph, name, is_block, dtype, largest, runs, left } = magnitude;
    let kind = if *is_block { "block" } else { "output" };
    let share = match left {
        Some(run) => format!("NOT FINITE in run {run}"),
        None => format!("{:.2} %", 100.0 * largest / FP16_MAX),
    };
    let (graph, name, dtype) = (plain(graph), plain(name), dtype.to_string());
    format!("{graph:16} {kind:8} {name:32} {dtype:4} {runs:>5} {largest:>10.4}  {share}")
}
