//! What the tests of the graphs share: tensors and how far apart they are ([`tensor`]), the
//! reference goldens ([`golden`]), inputs made from their names ([`synthetic`]), graphs written by
//! the exporter and run by the engines ([`graphs`]), and tables of errors ([`worst`]).

pub mod golden;
pub mod graphs;
pub mod synthetic;
pub mod tensor;
pub mod transformer;
pub mod worst;
