//! Plans of requests: the tables that `hydit-serve plan --tensors` writes, checked against the
//! pipeline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hydit_graphs::DType;
use hydit_graphs::onnx::{DimensionValue, GraphProto, ValueInfoProto};
use hydit_input::file;
use safetensors::{Dtype, SafeTensors};

use super::check_name;
use super::config::{dims, dtype};
use crate::error::{Error, Result};

/// The largest plan that is read: one of the largest image with noise for 1,000 steps.
const MAX_PLAN: u64 = 1 << 30;

/// The symbols of axes with a row for each step.
const BY_STEP: [&str; 3] = ["steps", "draws", "corrections"];

/// A plan.
pub struct Plan {
    /// Name in the repository: that of the file.
    pub name: String,
    /// The file that it was read from.
    pub path: PathBuf,
    /// Shape and bytes of the first step, by the names of the pipeline's inputs.
    inputs: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Plan {
    /// The pipeline's inputs for the first step of the plan alone.
    pub fn first_step(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        self.inputs.iter().map(|(name, (_, bytes))| (name.as_str(), bytes.clone()))
    }

    /// The shape of `input` at the first step.
    pub fn shape(&self, input: &str) -> &[usize] {
        &self.inputs[input].0
    }

    /// The name of the file with `input` for the warm-up.
    pub fn warm_up_file(&self, input: &str) -> String {
        format!("{}.{input}", self.name)
    }
}

/// Reads the plans `paths` for a pipeline.
///
/// # Errors
/// There is none, two have one name, or one is not for the pipeline.
pub fn read(paths: &[PathBuf], pipeline: &GraphProto) -> Result<Vec<Plan>> {
    let mut plans: Vec<Plan> = Vec::new();
    for path in paths {
        let plan = read_one(path, pipeline)?;
        if plans.iter().any(|other| other.name == plan.name) {
            let message = format!("two plans are called {}: rename a file", plan.name);
            return Err(Error::Flag { flag: "plan", message });
        }
        plans.push(plan);
    }
    if plans.is_empty() {
        let message = "expected the file of a plan; hydit-serve plan --tensors writes one";
        return Err(Error::Flag { flag: "plan", message: message.to_string() });
    }
    Ok(plans)
}

fn read_one(path: &Path, pipeline: &GraphProto) -> Result<Plan> {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    check_name("plan", &name)?;
    let bytes = file::read(path, MAX_PLAN).map_err(Error::reading(path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(Error::content(path))?;
    let mut inputs = BTreeMap::new();
    for input in &pipeline.input {
        let name = input.name.clone().unwrap_or_default();
        let refuse = |what: String| {
            Err(Error::content(path)(format!("{what}: it is no plan for this artifact folder")))
        };
        let Ok(found) = tensors.tensor(&name) else {
            return refuse(format!("it has no tensor `{name}`"));
        };
        if !fits(input, found.shape(), found.dtype()) {
            return refuse(format!(
                "its tensor `{name}` is {:?} {:?}",
                found.dtype(),
                found.shape()
            ));
        }
        let (mut shape, mut data) = (found.shape().to_vec(), found.data().to_vec());
        let by_step = dims(input).first().is_some_and(|first| match first {
            Some(DimensionValue::DimParam(symbol)) => BY_STEP.contains(&symbol.as_str()),
            _ => false,
        });
        if by_step && shape[0] > 0 {
            data.truncate(data.len() / shape[0]);
            shape[0] = 1;
        }
        inputs.insert(name, (shape, data));
    }
    Ok(Plan { name, path: path.to_path_buf(), inputs })
}

/// Whether a tensor of this shape and type can be the input.
fn fits(input: &ValueInfoProto, shape: &[usize], found: Dtype) -> bool {
    let wanted = match dtype(input) {
        DType::I64 => Dtype::I64,
        DType::Bool => Dtype::BOOL,
        _ => Dtype::F32,
    };
    let sizes = dims(input);
    found == wanted
        && sizes.len() == shape.len()
        && sizes.iter().zip(shape).all(|(size, &found)| match size {
            Some(DimensionValue::DimValue(size)) => *size == found as i64,
            _ => true,
        })
}
