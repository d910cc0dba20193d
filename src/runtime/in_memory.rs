//! Loads graphs that are made in memory.

use std::io::{BufWriter, Result as IoResult, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use hydit_graphs::{DType, GraphDef, Initializer};

use crate::error::{Error, Result};
use crate::runtime::{Backend, Session};

/// Loads `graph`, whose weights, if it has any, are `values` over and over.
///
/// # Errors
/// When the temporary folder cannot be written, or what the backend says.
pub(crate) fn load(backend: &Backend, graph: &GraphDef, values: &[f32]) -> Result<Session> {
    let io = |source| Error::Write { path: std::env::temp_dir(), source };
    let folder = tempfile::tempdir().map_err(io)?;
    let path = write(graph, folder.path(), values)
        .map_err(|source| Error::Write { path: folder.path().to_path_buf(), source })?;
    Ok(backend.load(&path)?)
}

/// Gives the path of the ONNX file.
fn write(graph: &GraphDef, folder: &Path, values: &[f32]) -> IoResult<PathBuf> {
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
        // Small numbers and large, of both signs, none of them no number.
        DType::F8E4M3FN => values.map(|v| (v * 40.0) as i8 as u8 & 0xbf).collect(),
        DType::F16 => values.flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.flat_map(|v| v.to_le_bytes()).collect(),
    }
}
