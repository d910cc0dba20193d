//! The classes and functions of Python of which checkpoints are made: these, and no others.

use crate::tensor::Dtype;

/// A class or function that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    OrderedDict,
    /// The arguments of a program, which trainings save beside weights.
    Namespace,
    Set,
    Size,
    Device,
    Dtype(Dtype),
    /// The class of a storage: of elements of a type, or of bytes.
    Storage(Option<Dtype>),
    /// `_rebuild_tensor`, `_rebuild_tensor_v2` and `_rebuild_tensor_v3`, by their number.
    RebuildTensor(u8),
    RebuildParameter,
}

impl Global {
    pub fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("argparse", "Namespace") => Self::Namespace,
            ("builtins" | "__builtin__", "set") => Self::Set,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensor(1),
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor(2),
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensor(3),
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch.storage", "UntypedStorage") => Self::Storage(None),
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("torch", name) => match storage(name) {
                Some(dtype) => Self::Storage(Some(dtype)),
                None => Self::Dtype(dtype(name)?),
            },
            _ => return None,
        })
    }
}

fn storage(name: &str) -> Option<Dtype> {
    Some(match name.strip_suffix("Storage")? {
        "Double" => Dtype::F64,
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::Bool,
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Dtype> {
    use Dtype::{BF16, Bool, F8E4M3, F8E5M2, F16, F32, F64};
    use Dtype::{I8, I16, I32, I64, U8, U16, U32, U64};
    [F64, F32, F16, BF16, F8E4M3, F8E5M2, I64, I32, I16, I8, U64, U32, U16, U8, Bool]
        .into_iter()
        .find(|dtype| dtype.name() == name)
}
