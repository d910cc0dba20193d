//! What the tests of the graphs share: tensors and how far apart they are ([`tensor`]), the
//! reference goldens ([`golden`]), inputs made from their names ([`synthetic`]), and graphs written
//! by the exporter and run by both engines ([`graphs`]).
#![allow(dead_code)] // every test uses a part of it

pub mod golden;
pub mod graphs;
pub mod synthetic;
pub mod tensor;
pub mod transformer;
