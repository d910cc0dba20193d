//! Which version of a graph to build: one model, the differences live in [`mod@crate::nn`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::tensor::DType;

/// How the big matrices are stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats, with norms, softmax and scores in fp32.
    Fp16,
    /// bfloat16 where fp16 has 16-bit floats: the range of fp32 with 8 bits of precision.
    Bf16,
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
    /// The same operators, for its CUDA provider.
    OrtCuda,
    /// What TensorRT needs of a strongly typed network: standard operators, one type for all
    /// operands of an operator, every change of type an explicit cast. Graphs of the portable form
    /// have it by construction, so the two differ in what [`Target::check`] refuses, not in nodes.
    #[serde(rename = "tensorrt")]
    TensorRt,
}

/// The version of a graph to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// How the big matrices are stored and multiplied.
    pub precision: Precision,
    /// Whom it is written for.
    pub form: Form,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 4] =
        [Precision::Fp32, Precision::Fp16, Precision::Bf16, Precision::Int8];

    /// Element type of the activations between matrices, and of weights that are not quantized.
    pub fn compute(self) -> DType {
        match self {
            Precision::Fp16 => DType::F16,
            Precision::Bf16 => DType::BF16,
            Precision::Fp32 | Precision::Int8 => DType::F32,
        }
    }

    /// What convolutions are computed in: ONNX's `Conv` takes bf16 from operator set 22 on, its
    /// `InstanceNormalization` likewise, and ONNX Runtime's `Resize` not at all.
    pub fn of_convolutions(self) -> Precision {
        match self {
            Precision::Bf16 => Precision::Fp32,
            other => other,
        }
    }
}

impl Form {
    /// Every form.
    pub const ALL: [Form; 4] = [Form::Portable, Form::OrtCpu, Form::OrtCuda, Form::TensorRt];

    /// Whether attention is one operator, and the rotary embedding another.
    pub fn has_fused_attention(self) -> bool {
        matches!(self, Form::OrtCpu | Form::OrtCuda)
    }
}

impl Target {
    /// Whether graphs of this precision and form can do what they are for.
    ///
    /// # Errors
    /// Why not, and what to use instead.
    pub fn check(self) -> Result<(), String> {
        let Target { precision, form } = self;
        let reason = match (precision, form) {
            (Precision::Fp16, Form::OrtCpu) => {
                "fp16 gains nothing with --optimize-for ort-cpu, where ONNX Runtime computes fp16 \
                 in fp32: use fp32 or int8, or --optimize-for ort-cuda on a GPU"
            }
            (Precision::Bf16, Form::OrtCpu) => {
                "bf16 does not run with --optimize-for ort-cpu: ONNX Runtime's CPU provider has no \
                 bf16 products: use fp32 or int8, or --optimize-for ort-cuda on a GPU"
            }
            (Precision::Int8, Form::OrtCuda) => {
                "int8 does not run with --optimize-for ort-cuda: ONNX Runtime's CUDA provider has \
                 no DynamicQuantizeLinear: use fp16 or bf16"
            }
            (Precision::Int8, Form::TensorRt) => {
                "int8 does not run with --optimize-for tensorrt: TensorRT has neither \
                 DynamicQuantizeLinear nor MatMulInteger: use fp16 or bf16"
            }
            _ => return Ok(()),
        };
        Err(reason.to_string())
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Portable => "portable",
            Form::OrtCpu => "ort-cpu",
            Form::OrtCuda => "ort-cuda",
            Form::TensorRt => "tensorrt",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Precision, String> {
        by_name(name, &Precision::ALL)
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(name: &str) -> Result<Form, String> {
        by_name(name, &Form::ALL)
    }
}

/// The one of `all` that is shown as `name`.
pub(crate) fn by_name<T: Copy + fmt::Display>(name: &str, all: &[T]) -> Result<T, String> {
    all.iter().copied().find(|one| one.to_string() == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(T::to_string).collect();
        format!("`{name}` is not one of {}", names.join(", "))
    })
}

impl From<Precision> for Target {
    fn from(precision: Precision) -> Target {
        Target { precision, form: Form::Portable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_flags_and_in_the_manifest() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            let text = serde_saphyr::to_string(&precision).expect("YAML");
            assert_eq!(text.trim(), precision.to_string());
        }
        for form in Form::ALL {
            assert_eq!(form.to_string().parse(), Ok(form));
            let text = serde_saphyr::to_string(&form).expect("YAML");
            assert_eq!(text.trim(), form.to_string());
        }
        let refused = "gpu".parse::<Form>().expect_err("a refusal");
        assert_eq!(refused, "`gpu` is not one of portable, ort-cpu, ort-cuda, tensorrt");
    }

    #[test]
    fn what_cannot_do_its_work_is_refused_by_name_and_everything_else_allowed() {
        let refused = ["fp16 ort-cpu", "bf16 ort-cpu", "int8 ort-cuda", "int8 tensorrt"];
        for precision in Precision::ALL {
            for form in Form::ALL {
                let name = format!("{precision} {form}");
                match (Target { precision, form }).check() {
                    Ok(()) => assert!(!refused.contains(&name.as_str()), "{name} is allowed"),
                    Err(message) => {
                        assert!(refused.contains(&name.as_str()), "{message}");
                        assert!(message.contains(&format!("with --optimize-for {form}")));
                        assert!(message.starts_with(&precision.to_string()), "{message}");
                        assert!(message.contains(": use "), "{message}");
                    }
                }
            }
        }
    }
}
