//! The version of a graph to build. There is one model: all differences between versions are in
//! `nn.rs`.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};

use crate::names::UnknownName;
use crate::pag::PagLayers;
use crate::tensor::DType;

/// The number format in which the large matrices are stored and multiplied.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::among::<Precision>)]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats, with norms, softmax, attention scores and residual streams in fp32.
    Fp16,
    /// bfloat16 wherever fp16 has 16-bit floats: the range of fp32 with 8 bits of precision.
    Bf16,
    /// 8-bit integers: weights quantized by output channel; in the blocks of the transformer also
    /// activations, by tensor at run time. Token tables are fp16, everything else is fp32.
    Int8,
    /// 8-bit floats: weights and activations of the linear layers of the blocks, as pairs of
    /// QuantizeLinear and DequantizeLinear around fp16 products. Everything else is as in fp16.
    Fp8,
}

/// The runtime that a graph is built for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::among::<Target>)]
pub enum Target {
    /// Any ONNX runtime: only standard operators.
    Portable,
    /// ONNX Runtime's CPU provider, with its fused attention and rotary operators
    /// (`com.microsoft`).
    OrtCpu,
    /// ONNX Runtime's CUDA provider, with the same operators.
    OrtCuda,
    /// TensorRT with a strongly typed network: standard operators, one element type for all
    /// operands of an operator, every change of type an explicit cast. Portable graphs fulfil this
    /// by construction. The two differ in what [`GraphOptions::check`] refuses, and in 16 bits in
    /// the type of attention's scores.
    #[serde(rename = "tensorrt")]
    #[strum(serialize = "tensorrt")]
    TensorRt,
}

/// The version of a graph to build. A [`Precision`] alone converts into the portable version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// The number format of the large matrices.
    pub precision: Precision,
    /// The runtime that the graph is built for.
    pub target: Target,
    /// Whether the transformer has [slots](crate::lora) for LoRAs.
    pub lora_slots: bool,
    /// Whether the transformer reads the [controls](crate::control) of ControlNets.
    pub controls: bool,
    /// Whether the transformer reads image prompts by an [IP-Adapter](crate::ip_adapter).
    pub ip_adapter: bool,
    /// The blocks whose self-attention rows may leave out, for [perturbed-attention
    /// guidance](crate::pag).
    pub pag_layers: PagLayers,
}

/// A precision that is useless or impossible on a target. The message says why, and what to use
/// instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnsupportedOptions(&'static str);

impl Precision {
    /// All precisions.
    pub const ALL: &[Precision] = Precision::VARIANTS;

    /// The element type of activations between matrices, and of weights that are not quantized.
    pub fn compute(self) -> DType {
        match self {
            Precision::Fp16 | Precision::Fp8 => DType::F16,
            Precision::Bf16 => DType::BF16,
            Precision::Fp32 | Precision::Int8 => DType::F32,
        }
    }

    /// The precision of convolutions, which is fp32 in bf16 graphs: ONNX's `Conv` and
    /// `InstanceNormalization` take bf16 only from operator set 22 on, and ONNX Runtime's `Resize`
    /// does not take it at all.
    pub fn for_convolutions(self) -> Precision {
        match self {
            Precision::Bf16 => Precision::Fp32,
            Precision::Fp8 => Precision::Fp16,
            other => other,
        }
    }
}

impl Target {
    /// All targets.
    pub const ALL: &[Target] = Target::VARIANTS;

    /// Whether attention is a single operator, and the rotary embedding another.
    pub fn has_fused_attention(self) -> bool {
        matches!(self, Target::OrtCpu | Target::OrtCuda)
    }
}

impl Target {
    /// The precision that suits most who run a model on this target, and why, in a sentence without
    /// its subject.
    pub fn usual_precision(self) -> (Precision, &'static str) {
        match self {
            Target::Portable => {
                (Precision::Fp32, "runs on any engine and draws what the reference draws")
            }
            Target::OrtCpu => (
                Precision::Int8,
                "takes a third of the space of fp32 and is faster on processors with 8-bit dot \
                 products; fp32 draws what the reference draws",
            ),
            Target::OrtCuda | Target::TensorRt => (
                Precision::Fp16,
                "takes half the space of fp32 and is what GPUs multiply fastest; `hydit-serve \
                 verify --check-finite` tells whether its range suffices, else take bf16",
            ),
        }
    }
}

impl GraphOptions {
    /// Checks that the target can run graphs of this precision, and gains from it.
    ///
    /// # Errors
    /// The reason why not, and what to use instead.
    pub fn check(self) -> Result<(), UnsupportedOptions> {
        Err(UnsupportedOptions(match (self.precision, self.target) {
            (Precision::Fp16, Target::OrtCpu) => {
                "fp16 gains nothing with --optimize-for ort-cpu, where ONNX Runtime computes fp16 \
                 in fp32: use fp32 or int8, or --optimize-for ort-cuda on a GPU"
            }
            (Precision::Bf16, Target::OrtCpu) => {
                "bf16 does not run with --optimize-for ort-cpu: ONNX Runtime's CPU provider has no \
                 bf16 matrix products: use fp32 or int8, or --optimize-for ort-cuda on a GPU"
            }
            (Precision::Int8, Target::OrtCuda) => {
                "int8 does not run with --optimize-for ort-cuda: ONNX Runtime's CUDA provider has \
                 no DynamicQuantizeLinear: use fp16 or bf16"
            }
            (Precision::Int8, Target::TensorRt) => {
                "int8 does not run with --optimize-for tensorrt: TensorRT has neither \
                 DynamicQuantizeLinear nor MatMulInteger: use fp16 or bf16"
            }
            (Precision::Fp8, Target::OrtCpu) => {
                "fp8 gains nothing with --optimize-for ort-cpu, where ONNX Runtime computes fp8 in \
                 fp32: use fp32 or int8"
            }
            (Precision::Fp8, Target::OrtCuda) => {
                "fp8 gains nothing with --optimize-for ort-cuda, where ONNX Runtime multiplies fp8 \
                 in fp16: use fp16 or bf16, or --optimize-for tensorrt"
            }
            _ => return Ok(()),
        }))
    }
}

impl From<Precision> for GraphOptions {
    fn from(precision: Precision) -> GraphOptions {
        (precision, Target::Portable).into()
    }
}

impl From<(Precision, Target)> for GraphOptions {
    fn from((precision, target): (Precision, Target)) -> GraphOptions {
        GraphOptions {
            precision,
            target,
            lora_slots: false,
            controls: false,
            ip_adapter: false,
            pag_layers: PagLayers::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_flags_and_in_the_manifest() {
        for &precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            let text = serde_saphyr::to_string(&precision).expect("YAML");
            assert_eq!(text.trim(), precision.to_string());
        }
        for &target in Target::ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
            let text = serde_saphyr::to_string(&target).expect("YAML");
            assert_eq!(text.trim(), target.to_string());
        }
        let refused = "gpu".parse::<Target>().expect_err("a refusal");
        assert_eq!(
            refused.to_string(),
            "`gpu` is not one of portable, ort-cpu, ort-cuda, tensorrt"
        );
    }

    #[test]
    fn the_usual_precision_of_a_target_can_do_its_work() {
        for &target in Target::ALL {
            let (precision, why) = target.usual_precision();
            assert_eq!(GraphOptions::from((precision, target)).check(), Ok(()), "{target}");
            assert!(!why.contains('\n') && !why.ends_with('.'), "{why}");
        }
    }

    #[test]
    fn what_cannot_do_its_work_is_refused_by_name_and_everything_else_allowed() {
        let refused = [
            "fp16 ort-cpu",
            "bf16 ort-cpu",
            "int8 ort-cuda",
            "int8 tensorrt",
            "fp8 ort-cpu",
            "fp8 ort-cuda",
        ];
        for &precision in Precision::ALL {
            for &target in Target::ALL {
                let name = format!("{precision} {target}");
                match GraphOptions::from((precision, target)).check() {
                    Ok(()) => assert!(!refused.contains(&name.as_str()), "{name} is allowed"),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(refused.contains(&name.as_str()), "{message}");
                        assert!(message.contains(&format!("with --optimize-for {target}")));
                        assert!(message.starts_with(&precision.to_string()), "{message}");
                        assert!(message.contains(": use "), "{message}");
                    }
                }
            }
        }
    }
}
