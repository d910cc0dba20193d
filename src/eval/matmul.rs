//! One large matrix product: how fast an engine multiplies on this machine, which is the limit to
//! hold a graph's rate against.

use std::time::{Duration, Instant};

use hydit_graphs::arithmetic::{MATMUL_WIDTH, matmul};
use hydit_graphs::{DType, Precision, Sizes};

use crate::error::Result;
use crate::runtime::{Backend, Session, Value, in_memory};
use crate::sampler::TorchGenerator;

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
        let values = TorchGenerator::new(0).randn(VALUES);
        let session = in_memory::load(backend, &graph, &values)?;

        let shape = [sizes.batch, sizes.grid_height * sizes.grid_width, MATMUL_WIDTH];
        let x: Vec<f32> = values.iter().copied().cycle().take(shape.iter().product()).collect();
        let x = match graph.inputs[0].dtype {
            DType::F16 => backend.tensor_f16(&shape, &x)?,
            DType::BF16 => backend.tensor_bf16(&shape, &x)?,
            _ => backend.tensor_f32(&shape, &x)?,
        };
        Ok(Probe { session, x: backend.to_device(x)? })
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
        [sizes.batch * sizes.grid_height * sizes.grid_width, MATMUL_WIDTH, MATMUL_WIDTH]
    }

    /// Operations of the product: 2 for a multiply-add, none for quantization.
    pub fn flops(sizes: &Sizes) -> f64 {
        2.0 * Probe::shape(sizes).iter().map(|&n| n as f64).product::<f64>()
    }
}
