//! From a request to its answer: status, headers, body.

use std::{ops::Range, sync::Arc};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};

use super::{
    Shared,
    body::{Body, Place},
    content, headers,
    path::{self, ContentPath, Target},
    range::{self, Wanted},
    request::Asked,
    source::Unserved,
};

/// What a client that finds no place waits, in seconds.
const RETRY_AFTER: &str = "1";

/// Answers a request. Never fails: errors are answers.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (format, mut response) = match *request.method() {
        Method::GET | Method::HEAD => serve(shared, &request).await,
        Method::OPTIONS => ("none", plain(StatusCode::NO_CONTENT, "")),
        _ => ("none", plain(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS are offered here")),
    };
    if *request.method() == Method::OPTIONS || response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    }
    headers::common(response.headers_mut());
    let status = response.status().as_str().to_owned();
    metrics::counter!("pinfold_gateway_requests_total", "format" => format, "status" => status).increment(1);
    response
}

async fn serve(shared: Arc<Shared>, request: &Request<Incoming>) -> (&'static str, Response<Body>) {
    let asked = match Asked::of(request) {
        Ok(asked) => asked,
        Err(error) => return ("none", plain(StatusCode::BAD_REQUEST, error.0)),
    };
    let format = asked.negotiated.format.word();
    let Ok(permit) = shared.places.clone().try_acquire_owned() else {
        let mut busy = plain(StatusCode::SERVICE_UNAVAILABLE, "the gateway is busy; try again in a moment");
        busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        return (format, busy);
    };
    if let Some(uri) = asked.parameter("uri").filter(|_| asked.path == "/ipfs/") {
        return (format, path::of_uri(uri).map_or_else(no_uri, |location| redirect(&location)));
    }
    let place = Place::new(permit);
    let domain = shared.domain.as_deref();
    let target = path::target(domain, asked.site(domain), &asked.path, asked.is_rendered());
    let response = match target {
        Target::Content(path) => return (format, found(shared, asked, path, place).await),
        Target::Redirect(location) => redirect(&with_query(&asked, location)),
        Target::NotFound => {
            plain(StatusCode::NOT_FOUND, "nothing is here; content is at /ipfs/CID, with a path below it")
        }
        Target::Invalid(text) => plain(StatusCode::BAD_REQUEST, text),
    };
    (format, response)
}

fn no_uri() -> Response<Body> {
    plain(StatusCode::BAD_REQUEST, "uri names no content; it is to be ipfs://CID, with a path below it")
}

async fn found(shared: Arc<Shared>, asked: Asked, path: ContentPath, place: Place) -> Response<Body> {
    if asked.is_service_worker && !path.is_origin && path.segments.is_empty() && !path.trailing_slash {
        return plain(StatusCode::BAD_REQUEST, "a service worker may not be registered for /ipfs/CID");
    }
    let readers = shared.readers.clone();
    let (only_if_cached, is_head) = (asked.only_if_cached, asked.is_head);
    let work = move || content::content(&shared, &asked, &path);
    let answered = readers.run(work).await.and_then(|answer| answer);
    let response = answered.unwrap_or_else(|error| refused(&error, only_if_cached));
    response.map(|body| if is_head { Body::empty() } else { body.holding(place) })
}

/// What is sent where the content cannot be.
fn refused(error: &Unserved, only_if_cached: bool) -> Response<Body> {
    let status = match error {
        Unserved::NotHeld(_) if only_if_cached => StatusCode::PRECONDITION_FAILED,
        Unserved::NotHeld(_) | Unserved::NoLink { .. } | Unserved::Undecodable { .. } => {
            StatusCode::NOT_FOUND
        }
        Unserved::Denied(_) => StatusCode::GONE,
        Unserved::Inside(_) => StatusCode::NOT_IMPLEMENTED,
        Unserved::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
        Unserved::Bad(_) => StatusCode::BAD_REQUEST,
        Unserved::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
        Unserved::Store(_) | Unserved::Cancelled => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if let Unserved::Store(source) = error {
        tracing::error!(error = %source, "the gateway cannot read the block store");
    }
    plain(status, error.to_string())
}

/// A text for people.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut text = text.into();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, headers::NEVER);
    if !text.is_empty() {
        text.push('\n');
        let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        *response.body_mut() = Body::full(text);
    }
    response
}

/// A permanent redirect: the path of a CID never means something else.
pub(super) fn redirect(location: &str) -> Response<Body> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, format!("moved to {location}"));
    response.headers_mut().insert(header::CACHE_CONTROL, headers::IMMUTABLE);
    headers::set(response.headers_mut(), header::LOCATION, location);
    response
}

/// A location with the request's query and scheme, which is HTTP unless a
/// proxy in front says otherwise.
fn with_query(asked: &Asked, location: String) -> String {
    let scheme = if asked.is_https { "https:" } else { "http:" };
    scheme.to_owned() + &append_query(asked, location)
}

/// A location with the request's query.
pub(super) fn append_query(asked: &Asked, location: String) -> String {
    match &asked.query {
        Some(query) => location + "?" + query,
        None => location,
    }
}

/// What is sent where there is something, however much of it.
pub(super) struct Entity {
    /// With its quotes.
    pub(super) tag: String,
    pub(super) media_type: String,
    pub(super) cache: HeaderValue,
    pub(super) disposition: Option<String>,
    pub(super) policy: Option<HeaderValue>,
    /// Its length in bytes; none where it is not known, and then there are no
    /// ranges.
    pub(super) length: Option<u64>,
}

impl Entity {
    /// Answers with this, or a part of it, or that the client has it. `open`
    /// is called for a GET alone, with the range where there is a length.
    pub(super) fn answer(
        self,
        asked: &Asked,
        mut headers: HeaderMap,
        open: impl FnOnce(Range<u64>) -> Result<Body, Unserved>,
    ) -> Result<Response<Body>, Unserved> {
        headers::set(&mut headers, header::ETAG, &self.tag);
        headers.insert(header::CACHE_CONTROL, self.cache.clone());
        if asked.if_none_match.as_deref().is_some_and(|list| headers::matches(list, &self.tag)) {
            return Ok(response(StatusCode::NOT_MODIFIED, headers, Body::empty()));
        }
        let accepts = if self.length.is_some() { "bytes" } else { "none" };
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static(accepts));
        headers::set(&mut headers, header::CONTENT_TYPE, &self.media_type);
        if let Some(disposition) = &self.disposition {
            headers::set(&mut headers, header::CONTENT_DISPOSITION, disposition);
        }
        if let Some(policy) = &self.policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
        }
        match self.length {
            Some(length) => self.sized(asked, headers, length, open),
            None if asked.is_head => Ok(response(StatusCode::OK, headers, Body::empty())),
            None => Ok(response(StatusCode::OK, headers, open(0..0)?)),
        }
    }

    fn sized(
        &self,
        asked: &Asked,
        mut headers: HeaderMap,
        length: u64,
        open: impl FnOnce(Range<u64>) -> Result<Body, Unserved>,
    ) -> Result<Response<Body>, Unserved> {
        let (status, range) = match self.wanted(asked, length) {
            Wanted::Whole => (StatusCode::OK, 0..length),
            Wanted::Part(range) => {
                let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                headers::set(&mut headers, header::CONTENT_RANGE, &text);
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Wanted::Unsatisfiable => {
                let mut response = plain(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    format!("the range lies beyond the end: there are {length} bytes"),
                );
                let text = format!("bytes */{length}");
                headers::set(response.headers_mut(), header::CONTENT_RANGE, &text);
                return Ok(response);
            }
        };
        headers::set(&mut headers, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
        let body = if asked.is_head { Body::empty() } else { open(range)? };
        Ok(response(status, headers, body))
    }

    /// What of it is wanted. Ranges are a matter of GET, and of the version
    /// that `If-Range` names.
    fn wanted(&self, asked: &Asked, length: u64) -> Wanted {
        let is_same = asked.if_range.as_ref().is_none_or(|tag| *tag == self.tag);
        let header = asked.range.as_deref().filter(|_| is_same && !asked.is_head);
        range::wanted(header, length)
    }
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
