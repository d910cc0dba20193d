//! Log lines: `tracing`, as text or JSON.
