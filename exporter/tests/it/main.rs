//! Exports of a tiny checkpoint, whole and damaged, through the library and the program.

mod answers;
mod checkpoint;
mod cli;
mod control;
mod corpus;
mod export;
mod field;
mod hostile;
mod hostile_configs;
mod hostile_files;
mod hostile_tensors;
mod in_place;
mod ip_adapter;
mod layouts;
mod lora;
mod pag;
mod replace;
mod single;
mod triton;
