//! The page: the files of `page/`, as they are, or in gzip for browsers that take it. It holds no
//! secrets and needs no key; what it asks for is asked for with one.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hydit::util::hex;
use sha2::{Digest, Sha256};
use tower_http::compression::CompressionLayer;

use super::error::ApiError;
use super::etag::{has, weak_etag};
use crate::server::app::App;

/// Nothing but what this server sends runs, is loaded or is asked; no markup is made of texts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file: its path, its media type, its bytes.
type File = (&'static str, &'static str, &'static str);

/// The file `page/$name`.
macro_rules! file {
    ($name:literal, $type:ident) => {
        (concat!("/page/", $name), $type, include_str!(concat!("page/", $name)))
    };
}

const INDEX: File = ("/", HTML, include_str!("page/index.html"));
const FILES: [File; 32] = [
    file!("api.js", SCRIPT),
    file!("brush.js", SCRIPT),
    file!("classes.js", SCRIPT),
    file!("compare.js", SCRIPT),
    file!("cut.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("field.js", SCRIPT),
    file!("form.js", SCRIPT),
    file!("gallery.js", SCRIPT),
    file!("grid.js", SCRIPT),
    file!("icon.svg", SVG),
    file!("images.js", SCRIPT),
    file!("jobs.js", SCRIPT),
    file!("keep.js", SCRIPT),
    file!("loras.js", SCRIPT),
    file!("main.js", SCRIPT),
    file!("measure.js", SCRIPT),
    file!("orders.js", SCRIPT),
    file!("page.css", CSS),
    file!("picked.js", SCRIPT),
    file!("pictures.js", SCRIPT),
    file!("plot.js", SCRIPT),
    file!("png.js", SCRIPT),
    file!("policy.js", SCRIPT),
    file!("presets.js", SCRIPT),
    file!("sizes.js", SCRIPT),
    file!("stage.js", SCRIPT),
    file!("strip.js", SCRIPT),
    file!("words-en.js", SCRIPT),
    file!("words-zh.js", SCRIPT),
    file!("words.js", SCRIPT),
    file!("zip.js", SCRIPT),
];

/// Whether `path` is that of a file of the page.
pub fn is_page(path: &str) -> bool {
    path == INDEX.0 || FILES.iter().any(|(known, ..)| *known == path)
}

/// The routes of the page. Its files share one, so that metrics count them together.
pub fn routes() -> Router<Arc<App>> {
    let tagged = |file: File| (file, weak_etag(&hex(&Sha256::digest(file.2))));
    let index = tagged(INDEX);
    let files = Arc::new(FILES.map(tagged));
    let index = get(async move |headers: HeaderMap| send(&headers, &index));
    let file = get(async move |uri: Uri, headers: HeaderMap| {
        let found = files.iter().find(|((path, ..), _)| *path == uri.path());
        found.map(|file| send(&headers, file)).ok_or_else(|| {
            let message = "the page has no such file";
            ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
    });
    let routes = Router::new().route(INDEX.0, index).route("/page/{file}", file);
    routes.layer(CompressionLayer::new())
}

fn send(headers: &HeaderMap, ((_, media, text), etag): &(File, HeaderValue)) -> Response {
    let known = has(headers, etag);
    let head = [
        (header::ETAG, etag.clone()),
        (header::CONTENT_TYPE, HeaderValue::from_static(media)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, *text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Bytes that a first visit in any language may take, unpacked.
    const WEIGHT: usize = 150_000;

    #[test]
    fn every_file_of_the_folder_is_sent_and_nothing_of_another_site_is_asked_for() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/http/page");
        let folder = folder.read_dir().expect("the folder");
        let mut there: BTreeSet<String> = folder
            .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
            .map(|name| format!("/page/{name}"))
            .collect();
        assert!(there.remove("/page/index.html"));
        assert_eq!(there, FILES.iter().map(|(path, ..)| path.to_string()).collect());
        for (path, _, text) in FILES.iter().chain([&INDEX]) {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
            assert!(!text.contains("style=") && !text.contains("innerHTML"), "{path}");
        }
        let all: usize = FILES.iter().chain([&INDEX]).map(|(.., text)| text.len()).sum();
        // Of the words those of one language are loaded, and of scripts not those that others import
        // when they need them.
        let words = FILES.iter().filter(|(path, ..)| path.contains("/words-"));
        let lightest = words.map(|(.., text)| text.len()).min().expect("there are languages");
        let later = |path: &str| {
            let import = format!("await import(\"./{}\")", path.trim_start_matches("/page/"));
            FILES.iter().any(|(.., text)| text.contains(&import))
        };
        let late = FILES.iter().filter(|(path, ..)| later(path)).map(|(.., text)| text.len());
        let weight = all - lightest - late.sum::<usize>();
        assert!(weight <= WEIGHT, "{weight}");
    }

    #[test]
    fn both_languages_have_the_same_words() {
        let words = |name: &str| {
            let (.., text) =
                FILES.iter().find(|(path, ..)| path.ends_with(name)).expect("it is there");
            let quoted = text.split('"').step_by(2); // what is between the texts
            let keys = quoted.flat_map(|code| code.split([',', '{', '\n']).map(str::trim));
            keys.filter_map(|key| key.strip_suffix(':').map(String::from)).collect::<BTreeSet<_>>()
        };
        let (en, zh) = (words("words-en.js"), words("words-zh.js"));
        assert!(en.len() > 100, "{en:?}");
        assert_eq!(en, zh);
    }
}
