//! `GET /`: what this is, for whoever opens the endpoint in a browser.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
};

use super::state::App;

/// Nothing is loaded, run, framed or sent anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// The longest host that is repeated in the page.
const MAX_HOST: usize = 255;

/// The page.
pub(crate) async fn page(State(app): State<App>, headers: HeaderMap) -> Response {
    let endpoint = app.public_url.clone().unwrap_or_else(|| format!("http://{}", host(&headers)));
    let mut response = Html(text(&escape(endpoint.trim_end_matches('/')))).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
        .headers_mut()
        .insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    response
}

fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
    let fits = (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(plain);
    if fits { host } else { "localhost" }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn text(endpoint: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Pinfold</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}\
         code{{background:#8882;padding:.1em .3em;overflow-wrap:anywhere}}</style>\n\
         <h1>Pinfold</h1>\n\
         <p>An open network of storage nodes behind a standard IPFS Pinning Service endpoint.</p>\n\
         <p>Add it to Kubo with a token from the operator:</p>\n\
         <p><code>ipfs pin remote service add pinfold {endpoint} TOKEN</code></p>\n\
         <p>The API is described in <a href=\"/openapi.json\">openapi.json</a>: the IPFS Pinning Service API \
         below <code>/pins</code>, accounts and tokens below <code>/api/v1</code>, delegated routing below \
         <code>/routing/v1</code>.</p>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_host_is_not_repeated() {
        for (given, shown) in [
            ("127.0.0.1:8070", "127.0.0.1:8070"),
            ("[::1]:8070", "[::1]:8070"),
            ("<script>", "localhost"),
            ("a b", "localhost"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(given).unwrap());
            assert_eq!(host(&headers), shown);
        }
        assert_eq!(host(&HeaderMap::new()), "localhost");
    }

    #[test]
    fn markup_is_escaped() {
        assert!(text(&escape("http://a/<b>\"&")).contains("http://a/&lt;b&gt;&quot;&amp;"));
    }
}
