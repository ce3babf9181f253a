//! Cross-origin requests: any page may call the API with a token of its own.
//!
//! Every answer carries the headers, errors included, since a browser hides an
//! answer without them from the page. Credentials are never allowed: access is
//! by token alone, so an origin proves nothing and excludes nobody.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Content-Length, Retry-After, X-Request-Id, WWW-Authenticate");
/// Always named: a wildcard does not cover `Authorization`.
const HEADERS: &str = "Authorization, Content-Type, Accept, Last-Event-Id, X-Request-Id";
/// What browsers keep a preflight's answer for at most: two hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// The longest list of requested headers that is given back.
const MAX_REQUESTED: usize = 1_024;

/// Answers preflights, and adds the headers to all other answers.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight { answer(request.headers()) } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    response
}

fn answer(requested: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed(requested));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

/// Our own list, then what was asked for, where it is a list of header names.
fn allowed(requested: &HeaderMap) -> HeaderValue {
    let asked = requested.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let names = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_, ".contains(&b));
    match asked.filter(|text| text.len() <= MAX_REQUESTED).filter(names) {
        Some(asked) if !asked.is_empty() => format!("{HEADERS}, {asked}").try_into(),
        _ => HEADERS.try_into(),
    }
    .unwrap_or(HeaderValue::from_static(HEADERS))
}
