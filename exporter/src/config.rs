//! The configs of all components of a checkpoint, read and compared with each other.

use std::path::{Path, PathBuf};

use hydit_graphs::config::{BertConfig, HunyuanDitConfig, T5Config, VaeConfig};
use hydit_graphs::manifest::ModelConfig;
use hydit_graphs::scheduler::NoiseSchedule;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::read_text;

const HINT: &str = "expected a checkpoint in diffusers' folder layout";

/// Reads the configs of the checkpoint folder `root`.
pub(crate) fn read(root: &Path) -> Result<ModelConfig> {
    check_index(root.join("model_index.json"))?;
    let component = |folder: &str| root.join(folder).join("config.json");
    let scheduler = root.join("scheduler/scheduler_config.json");
    let config = ModelConfig {
        transformer: parse(component("transformer"), HunyuanDitConfig::from_json)?,
        text_encoder: parse(component("text_encoder"), BertConfig::from_json)?,
        text_encoder_2: parse(component("text_encoder_2"), T5Config::from_json)?,
        vae: parse(component("vae"), VaeConfig::from_json)?,
        scheduler: parse(scheduler, NoiseSchedule::from_scheduler_config)?,
    };
    config.agrees().map_err(Error::Disagree)?;
    Ok(config)
}

/// Checks that the checkpoint is a Hunyuan-DiT pipeline.
fn check_index(path: PathBuf) -> Result<()> {
    let index: Value = parse(path.clone(), |text| serde_json::from_str(text))?;
    let class = index["_class_name"].as_str().unwrap_or_default();
    if !class.starts_with("HunyuanDiT") {
        let message = format!("`_class_name` is `{class}`; expected HunyuanDiTPipeline");
        return Err(Error::content(path)(message));
    }
    Ok(())
}

fn parse<T, E>(
    path: PathBuf,
    from_text: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    from_text(&read_text(&path, HINT)?).map_err(Error::content(path))
}
