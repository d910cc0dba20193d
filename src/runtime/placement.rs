//! Which nodes of a graph a provider does not take, as ONNX Runtime's log tells: its error names
//! none.

use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LoggerFunction;

/// The words of ONNX Runtime's refusal to run nodes on the CPU.
pub(super) const REFUSAL: &str = "fallback to CPU EP has been explicitly disabled";

/// Nodes that ONNX Runtime would run on its CPU.
#[derive(Clone, Default)]
pub(super) struct Placement(Arc<Mutex<Nodes>>);

#[derive(Default)]
struct Nodes {
    /// Whether the nodes that the log names now are on the CPU.
    on_cpu: bool,
    nodes: Vec<String>,
}

impl Placement {
    /// A log that reads where nodes are placed.
    pub fn logger(&self) -> LoggerFunction {
        let placement = self.clone();
        Arc::new(move |_, _, _, place, message| placement.read(place, message))
    }

    /// Reads a line that the log has from `place` in ONNX Runtime's source.
    fn read(&self, place: &str, message: &str) {
        if !place.contains("VerifyEachNodeIsAssignedToAnEp") {
            return;
        }
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = message.trim();
        if let Some((_, rest)) = message.split_once("placed on [") {
            nodes.on_cpu = rest.starts_with("CPUExecutionProvider]");
        } else if let Some((operator, name)) = message.split_once(" (")
            && nodes.on_cpu
            && operator.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
            && let Some(name) = name.strip_suffix(')')
        {
            nodes.nodes.push(format!("{operator} `{name}`"));
        }
    }

    /// The nodes, the first few of them by operator and name; `None` where there are none.
    pub fn told(&self) -> Option<String> {
        const FEW: usize = 3;
        let nodes = &self.0.lock().unwrap_or_else(PoisonError::into_inner).nodes;
        let few = nodes[..nodes.len().min(FEW)].join(", ");
        match nodes.len() {
            0 => None,
            1..=FEW => Some(few),
            more => Some(format!("{few} and {} more", more - FEW)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_on_the_cpu_are_read_and_no_others() {
        let placement = Placement::default();
        for line in [
            "Node placements",
            " Node(s) placed on [OpenVINOExecutionProvider]. Number of nodes: 1",
            "  OpenVINO (OpenVINO_1)",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1",
            "   Det (my/node)",
        ] {
            placement.read("session_state.cc:1578 VerifyEachNodeIsAssignedToAnEp", line);
        }
        placement.read("elsewhere.cc:1 Other", "Unrelated (of the log)");
        assert_eq!(placement.told().as_deref(), Some("Det `my/node`"));
        assert_eq!(Placement::default().told(), None);
    }
}
