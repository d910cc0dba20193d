//! Draws an image with ONNX Runtime alone, by the crate `ort`: no hydit at run time.
//!
//!     hydit-export --checkpoint models/emoji --out artifacts/emoji --single
//!     hydit-serve plan --model artifacts/emoji --prompt '蓝色背景上的猫' --use-cache --tensors cat.safetensors
//!     export ORT_DYLIB_PATH=$PWD/.runtime/1.31.1/libonnxruntime.so.1.31.1
//!     cargo run --release --example draw artifacts/emoji cat.safetensors cat.png

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use safetensors::{Dtype, SafeTensors};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, request, image] = &arguments[..] else {
        return Err("usage: draw MODEL TENSORS PNG".into());
    };

    let file = fs::read(request)?;
    let mut inputs: Vec<(String, SessionInputValue<'_>)> = Vec::new();
    for (name, view) in SafeTensors::deserialize(&file)?.tensors() {
        let (shape, bytes) = (view.shape().to_vec(), view.data());
        let value = match view.dtype() {
            Dtype::I64 => {
                let numbers =
                    bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect::<Vec<_>>();
                Tensor::from_array((shape, numbers))?.into()
            }
            Dtype::BOOL => {
                Tensor::from_array((shape, bytes.iter().map(|b| *b != 0).collect::<Vec<_>>()))?
                    .into()
            }
            _ => {
                let numbers =
                    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
                Tensor::from_array((shape, numbers))?.into()
            }
        };
        inputs.push((name, value));
    }

    let environment = ort::init().build()?;
    let mut session =
        Session::builder(&environment)?.commit_from_file(Path::new(model).join("pipeline.onnx"))?;
    let start = Instant::now();
    let outputs = session.run(inputs)?;
    let (shape, pixels) = outputs["images"].try_extract_tensor::<u8>()?;
    let [count, height, width] = [0, 1, 2].map(|axis| shape[axis] as u32);
    println!("{count} of {height}x{width} in {:.2} s", start.elapsed().as_secs_f64());

    // Images of a batch lie below each other.
    let mut png = png::Encoder::new(BufWriter::new(File::create(image)?), width, count * height);
    png.set_color(png::ColorType::Rgb);
    png.write_header()?.write_image_data(pixels)?;
    Ok(())
}
