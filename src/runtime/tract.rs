//! The tract engine: part of the program, for small models where no ONNX Runtime is installed, and
//! as a second opinion.
//!
//! A session keeps the parsed graph and a few plans, one per set of input shapes: symbolic axes
//! unify badly in transformer graphs, so a plan is made for the very shapes that it runs with. Runs
//! on one thread.

use std::{collections::VecDeque, path::Path, sync::Arc};

use hydit_input::guard::guarded;
use tract_onnx::{
    pb::{self, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto},
    prelude::{
        DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoArcTensor,
        IntoRunnable, TValue, Tensor, TractError, TractResult, TypedRunnableModel, onnx,
    },
};

use super::error::{BoxError, said};
use super::{DType, RuntimeError, TensorInfo};

/// The version of tract, which is part of every program.
pub const VERSION: &str = "0.23.9";

/// Plans kept per graph. Each holds its own packed weights.
const PLANS: usize = 4;

/// The engine that is always there.
#[derive(Clone)]
pub struct Tract {
    /// Why ONNX Runtime is not used instead; empty when tract was asked for.
    pub(super) notice: String,
}

impl Tract {
    /// "tract 0.23.9 (embedded)", with the notice.
    pub(super) fn describe(&self) -> String {
        let notice =
            if self.notice.is_empty() { String::new() } else { format!("; {}", self.notice) };
        format!("tract {VERSION} (embedded{notice})")
    }

    /// Loads a graph, or `file` in place of its ONNX file; returns it with its declared inputs and
    /// outputs.
    pub(super) fn load(
        &self,
        graph: &Path,
        file: Option<&[u8]>,
    ) -> Result<(Graph, Vec<TensorInfo>, Vec<TensorInfo>), RuntimeError> {
        let parsed = guarded("tract", || parse(graph, file));
        let parsed = parsed.map_err(BoxError::from).and_then(|parsed| parsed.map_err(said));
        parsed.map_err(|source| RuntimeError::Load {
            graph: graph.to_owned(),
            engine: format!("tract {VERSION}"),
            source,
        })
    }
}

fn parse(
    graph: &Path,
    file: Option<&[u8]>,
) -> TractResult<(Graph, Vec<TensorInfo>, Vec<TensorInfo>)> {
    let graph = graph.canonicalize()?;
    if graph.to_str().is_none() {
        return Err(TractError::msg(
            "tract finds no weights where the path is not UTF-8: rename the folder, or use \
             --backend ort",
        ));
    }
    // Shapes noted in the file speak of symbolic axes, which would not unify with the sizes set for
    // a plan.
    let framework = onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let file = match file {
        None => framework.proto_model_for_path(&graph)?,
        Some(mut file) => framework.proto_model_for_read(&mut file)?,
    };
    let parsed = framework.parse(&file, graph.parent().and_then(Path::to_str))?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(TractError::msg(format!(
            "nothing makes {}",
            parsed.unresolved_inputs.join(", ")
        )));
    }
    let declared = file.graph.unwrap_or_default();
    let is_weight = |value: &&pb::ValueInfoProto| {
        declared.initializer.iter().any(|weight| weight.name == value.name)
    };
    let inputs: Vec<_> =
        declared.input.iter().filter(|input| !is_weight(input)).map(info).collect();
    let outputs = declared.output.iter().map(info).collect();
    Ok((Graph { model: parsed.model, plans: VecDeque::new() }, inputs, outputs))
}

fn info(value: &pb::ValueInfoProto) -> TensorInfo {
    let mut info = TensorInfo { name: value.name.clone(), dtype: DType::Other, dims: Vec::new() };
    if let Some(type_proto::Value::TensorType(tensor)) =
        value.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    {
        info.dtype = match DataType::try_from(tensor.elem_type) {
            Ok(DataType::Bfloat16) => DType::BF16,
            Ok(other) => DatumType::try_from(other).map_or(DType::Other, DType::from),
            Err(_) => DType::Other,
        };
        let size = |dim: &pb::tensor_shape_proto::Dimension| match dim.value {
            Some(dimension::Value::DimValue(size)) => size.try_into().ok(),
            _ => None,
        };
        info.dims = tensor.shape.iter().flat_map(|shape| shape.dim.iter().map(size)).collect();
    }
    info
}

/// A graph parsed by tract.
pub struct Graph {
    model: InferenceModel,
    /// Last used first.
    plans: VecDeque<(Vec<Vec<usize>>, Arc<TypedRunnableModel>)>,
}

impl Graph {
    /// Runs on `inputs`, checked before and in the graph's order; returns the outputs in the
    /// graph's order.
    pub(super) fn run(&mut self, inputs: Vec<Arc<Tensor>>) -> Result<Vec<Arc<Tensor>>, BoxError> {
        let ran = guarded("tract", || -> TractResult<_> {
            let plan = self.plan(&inputs)?;
            let outputs = plan.run(inputs.into_iter().map(TValue::from_const).collect())?;
            Ok(outputs.into_iter().map(IntoArcTensor::into_arc_tensor).collect())
        });
        ran?.map_err(said)
    }

    fn plan(&mut self, inputs: &[Arc<Tensor>]) -> TractResult<Arc<TypedRunnableModel>> {
        let shapes: Vec<_> = inputs.iter().map(|tensor| tensor.shape().to_vec()).collect();
        let entry = match self.plans.iter().position(|(known, _)| *known == shapes) {
            Some(0) => return Ok(self.plans[0].1.clone()),
            Some(found) => self.plans.remove(found),
            None => None,
        };
        let entry = match entry {
            Some(entry) => entry,
            None => {
                let mut model = self.model.clone();
                for (index, tensor) in inputs.iter().enumerate() {
                    let fact = InferenceFact::dt_shape(tensor.datum_type(), tensor.shape());
                    model.set_input_fact(index, fact)?;
                }
                (shapes, model.into_optimized()?.into_runnable()?)
            }
        };
        let plan = entry.1.clone();
        self.plans.push_front(entry);
        self.plans.truncate(PLANS);
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_told_is_the_one_pinned() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(
            manifest.contains(&format!("tract-onnx = \"={VERSION}\"")),
            "VERSION and Cargo.toml differ"
        );
    }

    #[test]
    fn plans_are_kept_per_shape_and_bounded() {
        let graph =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/runtime/attention.onnx");
        let tract = Tract { notice: String::new() };
        let (mut engine, ..) = tract.load(&graph, None).expect("a graph");
        let x = |tokens: usize| Arc::new(Tensor::zero::<f32>(&[1, tokens, 8]).expect("a tensor"));
        for tokens in [1, 2, 1, 3, 4, 1, 5] {
            engine.run(vec![x(tokens)]).expect("a run");
        }
        let kept: Vec<_> = engine.plans.iter().map(|(shapes, _)| shapes[0][1]).collect();
        assert_eq!(kept, [5, 1, 4, 3], "last used first, the oldest gone");
        let plan = Arc::as_ptr(&engine.plans[1].1);
        engine.run(vec![x(1)]).expect("a run");
        assert_eq!(Arc::as_ptr(&engine.plans[0].1), plan, "a known shape was planned anew");
    }
}
