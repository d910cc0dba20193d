//! How many calls wait in a Triton, from its metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The metric: calls that wait for an instance of a model.
const PENDING: &str = "nv_inference_pending_request_count";
/// Maximum bytes of an answer.
const MAX_TEXT: usize = 4 << 20;

/// Calls that wait, by model.
pub type Pending = BTreeMap<String, u64>;

/// Asks for the metrics at `address`.
///
/// # Errors
/// When there is no answer, or not one of Triton's.
pub async fn ask(address: SocketAddr) -> io::Result<Pending> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_TEXT).collect().await;
    connection.abort();
    let body = body.map_err(io::Error::other)?.to_bytes();
    if status == StatusCode::OK {
        Ok(read(&String::from_utf8_lossy(&body)))
    } else {
        Err(io::Error::other(format!("/metrics answers {status}")))
    }
}

/// The samples of [`PENDING`] in a text, all versions of a model together.
fn read(text: &str) -> Pending {
    let mut pending = Pending::new();
    for line in text.lines() {
        let sample = line.strip_prefix(PENDING).and_then(|rest| rest.strip_prefix('{'));
        let Some((labels, value)) = sample.and_then(|sample| sample.rsplit_once('}')) else {
            continue;
        };
        let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
        let model =
            labels.find(|(name, _)| *name == "model").map(|(_, model)| model.trim_matches('"'));
        let count = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        if let (Some(model), Some(count)) = (model, count) {
            let sum: &mut u64 = pending.entry(model.to_string()).or_default();
            *sum = sum.saturating_add(count as u64); // what is below 0 is 0
        }
    }
    pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_are_read_by_model() {
        let text = "# TYPE nv_inference_pending_request_count gauge\n\
                    nv_inference_pending_request_count{model=\"emoji\",version=\"1\"} 2\n\
                    nv_inference_pending_request_count{version=\"2\",model=\"emoji\"} 1\n\
                    nv_inference_pending_request_count{model=\"other\"} NaN\n\
                    nv_inference_pending_request_count{version=\"1\",model=\"no end\"} +Inf\n\
                    nv_inference_pending_request_count{version=\"2\",model=\"no end\"} 1\n\
                    nv_inference_pending_request_count_more{model=\"emoji\"} 9\n\
                    nv_inference_count{model=\"emoji\",version=\"1\"} 7\n\
                    nv_inference_pending_request_count{model=\n";
        assert_eq!(
            read(text),
            Pending::from([("emoji".into(), 3), ("other".into(), 0), ("no end".into(), u64::MAX)])
        );
    }
}
