//! One large matrix product: how fast an engine multiplies on this machine, which is the limit to
//! hold a graph's rate against.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use hydit_graphs::probe::{WIDTH, matmul};
use hydit_graphs::{DType, GraphDef, Initializer, Precision, Sizes};

use crate::error::{Error, Result};
use crate::noise::TorchGenerator;
use crate::runtime::{Backend, Session, Value};

/// Distinct values among weights and inputs: a prime, so that no row is like its neighbour.
const VALUES: usize = 4099;

/// The product, loaded.
pub struct Probe {
    session: Session,
    x: Value,
}

impl Probe {
    /// The product that a linear of a block computes, with as many rows as `sizes` has tokens, but
    /// wider. Weights and inputs are random.
    ///
    /// # Errors
    /// When the temporary folder cannot be written, or what the engine says.
    pub fn load(backend: &Backend, precision: Precision, sizes: &Sizes) -> Result<Probe> {
        let graph = matmul(precision);
        let folder = tempfile::tempdir()
            .map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
        let values = TorchGenerator::new(0).randn(VALUES);
        let path = write(&graph, folder.path(), &values)
            .map_err(|source| Error::Io { path: folder.path().to_path_buf(), source })?;
        let session = backend.load(&path)?;

        let shape = [sizes.batch, sizes.grid_height * sizes.grid_width, WIDTH];
        let x: Vec<f32> = values.iter().copied().cycle().take(shape.iter().product()).collect();
        let x = match graph.inputs[0].dtype {
            DType::F16 => backend.tensor_f16(&shape, &x)?,
            DType::BF16 => backend.tensor_bf16(&shape, &x)?,
            _ => backend.tensor_f32(&shape, &x)?,
        };
        Ok(Probe { session, x: backend.place(x)? })
    }

    /// Multiplies once; how long that took.
    ///
    /// # Errors
    /// What the engine says.
    pub fn run(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.session.run(&[("x", &self.x)])?;
        Ok(start.elapsed())
    }

    /// Rows, inner size and columns of the product.
    pub fn shape(sizes: &Sizes) -> [usize; 3] {
        [sizes.batch * sizes.grid_height * sizes.grid_width, WIDTH, WIDTH]
    }

    /// Operations of the product: 2 for a multiply-add, none for quantization.
    pub fn flops(sizes: &Sizes) -> f64 {
        2.0 * Probe::shape(sizes).iter().map(|&n| n as f64).product::<f64>()
    }
}

/// Writes the graph and weights made of `values`; gives the path of the ONNX file.
fn write(graph: &GraphDef, folder: &Path, values: &[f32]) -> std::io::Result<std::path::PathBuf> {
    let mut data = BufWriter::new(std::fs::File::create(folder.join(graph.data_file()))?);
    let mut end = 0;
    for (initializer, extent) in graph.layout() {
        data.write_all(&vec![0; (extent.offset - end) as usize])?;
        data.write_all(&bytes(initializer, values))?;
        end = extent.offset + extent.length;
    }
    data.flush()?;
    let path = folder.join(graph.file());
    std::fs::write(&path, graph.encode())?;
    Ok(path)
}

fn bytes(initializer: &Initializer, values: &[f32]) -> Vec<u8> {
    let values = values.iter().cycle().take(initializer.elements());
    match initializer.dtype {
        DType::I8 => values.map(|v| (v * 40.0) as i8 as u8).collect(),
        DType::F16 => values.flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.flat_map(|v| v.to_le_bytes()).collect(),
    }
}
