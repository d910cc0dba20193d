//! Names of models that have slashes, as on the hub, in paths.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;

/// Paths that go on with a model's name.
const BEFORE: [&str; 2] = ["/v1/models/", "/v2/models/"];

/// Names with slashes, the longest first.
#[derive(Clone)]
pub struct Slashes(Arc<[String]>);

impl Slashes {
    /// Those of `names` that have slashes; `None` if none has.
    pub fn of<'a>(names: impl Iterator<Item = &'a String>) -> Option<Slashes> {
        let mut names: Vec<String> = names.filter(|name| name.contains('/')).cloned().collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        (!names.is_empty()).then(|| Slashes(names.into()))
    }

    /// The same with the name as one segment of the path, if there is such a name in it.
    fn escaped(&self, uri: &Uri) -> Option<Uri> {
        let text = uri.path_and_query()?.as_str();
        let before = BEFORE.into_iter().find(|before| text.starts_with(before))?;
        let rest = &text[before.len()..];
        let (name, after) = self.0.iter().find_map(|name| {
            let after = rest.strip_prefix(name.as_str())?;
            (after.is_empty() || after.starts_with(['/', '?'])).then_some((name, after))
        })?;
        let path = format!("{before}{}{after}", name.replace('/', "%2F"));
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// Lets clients write such a name as it is. Others write `%2F`, which is what the routes know.
pub async fn escape(State(names): State<Slashes>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = names.escaped(request.uri()) {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_segment_and_the_rest_stays() {
        let names = ["emoji", "tencent/dit", "tencent/dit/fp16"].map(String::from);
        let names = Slashes::of(names.iter()).expect("two have slashes");
        let escaped = |uri: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            names.escaped(&uri).map(|uri| uri.to_string())
        };
        for (before, after) in [
            ("/v1/models/tencent/dit", "/v1/models/tencent%2Fdit"),
            ("/v2/models/tencent/dit/infer?x=/", "/v2/models/tencent%2Fdit/infer?x=/"),
            ("/v2/models/tencent/dit?x", "/v2/models/tencent%2Fdit?x"),
            ("/v2/models/tencent/dit/fp16/ready", "/v2/models/tencent%2Fdit%2Ffp16/ready"),
            ("http://localhost/v1/models/tencent/dit", "http://localhost/v1/models/tencent%2Fdit"),
        ] {
            assert_eq!(escaped(before).as_deref(), Some(after));
        }
        for uri in ["/v1/models/emoji", "/v1/models/tencent/dits", "/v1/jobs/tencent/dit", "*"] {
            assert_eq!(escaped(uri), None, "{uri}");
        }
    }
}
