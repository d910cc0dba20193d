//! The names of all metrics, and their recorder.
