//! A request as a call of the pipeline in one file, and the images of its answer.

use hydit::CheckedRequest;
use hydit::image::Image;
use hydit::pipeline::tables::{Numbers, Table, Tabulator};

use crate::inference::{InferTensor, ModelInferRequest, ModelInferResponse, RequestedOutput};

/// The pipeline's only output: `[images, height, width, 3]`, bytes.
const IMAGES: &str = "images";

/// Pictures to be drawn by any host that has the model.
pub struct Order {
    /// Names the export that is to draw: the SHA-256 of its manifest.
    pub export: String,
    /// Prompts that were longer than the tokenizers take.
    pub truncated: Vec<&'static str>,
    /// The call, without the name that a host has given to the model.
    call: ModelInferRequest,
    /// Images, height, width.
    shape: [usize; 3],
}

impl Order {
    /// Puts `request` into tables.
    ///
    /// # Errors
    /// When its prompt cannot be tokenized, or its cache policy decides while the picture is drawn.
    pub fn new(tabulator: &Tabulator, request: &CheckedRequest) -> hydit::Result<Order> {
        let (tables, truncated) = tabulator.tables(request)?;
        let call = ModelInferRequest {
            inputs: tables.iter().map(input).collect(),
            raw_input_contents: tables.iter().map(|table| table.numbers.to_bytes()).collect(),
            outputs: vec![RequestedOutput { name: IMAGES.to_string(), ..Default::default() }],
            ..Default::default()
        };
        let shape = [request.num_images, request.height, request.width];
        Ok(Order { export: tabulator.artifacts().hash.clone(), truncated, call, shape })
    }

    /// The call of the host's `model`.
    pub fn call(&self, model: &str) -> ModelInferRequest {
        ModelInferRequest { model_name: model.to_string(), ..self.call.clone() }
    }

    /// Bytes of its images.
    pub fn bytes(&self) -> usize {
        3 * self.shape.iter().product::<usize>()
    }

    /// The images of an answer.
    ///
    /// # Errors
    /// When it is not the answer to this call.
    pub fn images(&self, answer: &ModelInferResponse) -> Result<Vec<Image>, String> {
        let [images, height, width] = self.shape;
        let expected = [images, height, width, 3].map(|size| size as i64);
        match (&answer.outputs[..], &answer.raw_output_contents[..]) {
            ([output], [bytes])
                if output.datatype == "UINT8"
                    && output.shape == expected
                    && bytes.len() == self.bytes() =>
            {
                let image = |rgb: &[u8]| Image { width, height, rgb: rgb.to_vec() };
                Ok(bytes.chunks(3 * height * width).map(image).collect())
            }
            (outputs, _) => {
                let got = outputs.iter().map(|out| format!("{} {:?}", out.datatype, out.shape));
                let got = got.collect::<Vec<_>>().join(", ");
                Err(format!("it has answered with {got}, not with UINT8 {expected:?}"))
            }
        }
    }
}

fn input(table: &Table) -> InferTensor {
    let datatype = match table.numbers {
        Numbers::F32(_) => "FP32",
        Numbers::I64(_) => "INT64",
        Numbers::Bool(_) => "BOOL",
    };
    InferTensor {
        name: table.name.to_string(),
        datatype: datatype.to_string(),
        shape: table.shape.iter().map(|&size| size as i64).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_images_that_were_asked_for_are_taken() {
        let (export, truncated, call) = (String::new(), Vec::new(), ModelInferRequest::default());
        let order = Order { export, truncated, call, shape: [2, 1, 3] };
        let answer = |datatype: &str, shape: [i64; 4], bytes: usize| ModelInferResponse {
            outputs: vec![InferTensor {
                name: IMAGES.to_string(),
                datatype: datatype.to_string(),
                shape: shape.to_vec(),
                ..Default::default()
            }],
            raw_output_contents: vec![(0..bytes as u8).collect()],
            ..Default::default()
        };
        let images = order.images(&answer("UINT8", [2, 1, 3, 3], 18)).expect("images");
        assert_eq!((images[1].width, images[1].height), (3, 1));
        assert_eq!(images[1].rgb, (9..18).collect::<Vec<u8>>());
        for wrong in [
            answer("FP32", [2, 1, 3, 3], 18),
            answer("UINT8", [1, 1, 3, 3], 18),
            answer("UINT8", [2, 1, 3, 3], 17),
            ModelInferResponse::default(),
        ] {
            let refused = order.images(&wrong).expect_err("a refusal");
            assert!(refused.contains("not with UINT8 [2, 1, 3, 3]"), "{refused}");
        }
    }
}
