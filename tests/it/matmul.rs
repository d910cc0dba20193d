//! The matrix product whose speed `bench` holds the model's against.

use hydit::eval::matmul::Probe;
use hydit::runtime::BackendChoice;
use hydit_graphs::{Precision, Sizes};
use hydit_testing::emoji;

#[test]
fn the_product_runs_in_every_precision_on_both_engines() {
    let sizes =
        Sizes { batch: 2, grid_height: 1, grid_width: 3, height: 2, width: 6, ..Sizes::default() };
    assert_eq!(Probe::shape(&sizes), [6, 2048, 2048]);
    for engine in [BackendChoice::Ort, BackendChoice::Tract] {
        let backend = emoji::backend(engine);
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
            let mut probe = Probe::load(&backend, precision, &sizes)
                .unwrap_or_else(|error| panic!("{engine}, {precision}: {error}"));
            let time = probe.run().unwrap_or_else(|error| panic!("{engine}, {precision}: {error}"));
            assert!(!time.is_zero());
        }
    }
}
