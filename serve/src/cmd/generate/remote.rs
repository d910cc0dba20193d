//! `--backend triton`: the same pictures, drawn elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hydit::CheckedRequest;
use hydit::artifacts::Artifacts;
use hydit::cache::{refreshed, refreshes};
use hydit::pipeline::tables::Tabulator;
use serde_json::json;

use super::Generate;
use super::pictures::Pictures;
use super::report::{images_json, plan_text};
use crate::cmd::files::tell;
use crate::cmd::{prompts, timesteps};
use crate::triton::{Address, Drawn, Hosts, Order};

impl Generate {
    /// Draws `request` by one of the Tritons at `addresses`.
    pub(super) fn draw_by(
        &self,
        addresses: &[Address],
        artifacts: Artifacts,
        request: &CheckedRequest,
        pictures: &Pictures,
    ) -> Result<()> {
        if self.compare {
            bail!("--compare needs an engine in this program: leave out --backend triton");
        }
        let tabulator = Tabulator::open(artifacts)?;
        let artifacts = tabulator.artifacts();
        let order = Order::new(&tabulator, request)?;
        let hosts = Hosts::start(addresses.to_vec(), vec![artifacts.hash.clone()])?;
        let start = Instant::now();
        let drawn = hosts.handle().block_on(async {
            hosts.known().await;
            let place = hosts.place(&order.export, false).await?;
            hosts.draw(&order, place, false).await
        })?;
        let took = start.elapsed();
        prompts::tell_cut(&order.truncated);
        self.write(pictures, artifacts, request, &drawn.images, &order.truncated)?;
        let report = match self.json {
            true => self.remote_json(artifacts, request, pictures, &order, &drawn, took)?,
            false => remote_text(request, pictures, &drawn, took)?,
        };
        Ok(tell(&pictures.images, report)?)
    }

    fn remote_json(
        &self,
        artifacts: &Artifacts,
        request: &CheckedRequest,
        pictures: &Pictures,
        order: &Order,
        drawn: &Drawn,
        took: Duration,
    ) -> Result<String> {
        let plan = request.planned()?;
        let report = json!({
            "images": images_json(request, &pictures.images),
            "parameters": request.parameters(artifacts, 0, &order.truncated),
            "backend": format!("Triton {}, model {}", drawn.host, drawn.model),
            "steps": plan.len(),
            "core_runs": refreshes(plan),
            "truncated": order.truncated,
            "refresh": refreshed(plan),
            "timesteps": timesteps::json(request.sampler().timesteps()),
            "drawing_seconds": took.as_secs_f64(),
        });
        Ok(format!("{report:#}"))
    }
}

fn remote_text(
    request: &CheckedRequest,
    pictures: &Pictures,
    drawn: &Drawn,
    took: Duration,
) -> Result<String> {
    let mut out = plan_text(request, request.planned()?);
    let (host, model, seconds) = (&drawn.host, &drawn.model, took.as_secs_f64());
    out += &format!("drawn by  {host}, model {model}, in {seconds:.2} s\n\n");
    for file in &pictures.images {
        out += &format!("wrote {file}\n");
    }
    Ok(out)
}
