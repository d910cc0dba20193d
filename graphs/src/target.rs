//! Which version of a graph to build: one model, the differences live in [`mod@crate::nn`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the big matrices are stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats, with norms, softmax and scores in fp32.
    Fp16,
    /// 8-bit integers: weights by output channel, activations by tensor as they come; all else fp32.
    Int8,
}

/// Whom a graph is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Standard operators only: any ONNX engine.
    Portable,
    /// ONNX Runtime's fused attention and rotary operators (`com.microsoft`), for its CPU provider.
    OrtCpu,
}

/// The version of a graph to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// How the big matrices are stored and multiplied.
    pub precision: Precision,
    /// Whom it is written for.
    pub form: Form,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Portable => "portable",
            Form::OrtCpu => "ort-cpu",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Precision, String> {
        let all = [Precision::Fp32, Precision::Fp16, Precision::Int8];
        let found = all.into_iter().find(|precision| precision.to_string() == name);
        found.ok_or_else(|| format!("`{name}` is not one of fp32, fp16, int8"))
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(name: &str) -> Result<Form, String> {
        let found =
            [Form::Portable, Form::OrtCpu].into_iter().find(|form| form.to_string() == name);
        found.ok_or_else(|| format!("`{name}` is not one of portable, ort-cpu"))
    }
}

impl From<Precision> for Target {
    fn from(precision: Precision) -> Target {
        Target { precision, form: Form::Portable }
    }
}
