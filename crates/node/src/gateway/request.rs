//! What a request says, read once.

use hyper::{
    Method,
    body::Incoming,
    header::{self, HeaderMap, HeaderName},
};
use url::form_urlencoded;

use super::{
    format::{self, BadFormat, Format, Negotiated},
    headers::SERVICE_WORKER,
};

/// Query parameters that are looked at.
const MAX_PARAMETERS: usize = 32;

/// A GET or HEAD request.
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) host: String,
    /// The host that a proxy in front was asked for.
    forwarded_host: Option<String>,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) negotiated: Negotiated,
    pub(super) if_none_match: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) range: Option<String>,
    pub(super) only_if_cached: bool,
    pub(super) is_service_worker: bool,
    /// A proxy in front speaks TLS with the client.
    pub(super) is_https: bool,
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// When it asks for a form that does not exist.
    pub(super) fn of(request: &hyper::Request<Incoming>) -> Result<Self, BadFormat> {
        let (headers, uri) = (request.headers(), request.uri());
        let query = uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        let parameters: Vec<(String, String)> = pairs.take(MAX_PARAMETERS).collect();
        let accept: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let host = uri.host().map(|_| uri.authority().map(|authority| authority.as_str().to_owned()));
        let scheme = HeaderName::from_static("x-forwarded-proto");
        Ok(Self {
            is_head: request.method() == Method::HEAD,
            host: host.flatten().or_else(|| text(headers, &header::HOST)).unwrap_or_default(),
            forwarded_host: text(headers, &HeaderName::from_static("x-forwarded-host")),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            negotiated: format::negotiate(&parameters, &accept)?,
            parameters,
            if_none_match: joined(headers, &header::IF_NONE_MATCH),
            if_range: text(headers, &header::IF_RANGE),
            range: text(headers, &header::RANGE),
            only_if_cached: joined(headers, &header::CACHE_CONTROL).is_some_and(|list| {
                list.split(',').any(|part| part.trim().eq_ignore_ascii_case("only-if-cached"))
            }),
            is_service_worker: text(headers, &SERVICE_WORKER).is_some_and(|value| value == "script"),
            is_https: text(headers, &scheme).is_some_and(|value| value.eq_ignore_ascii_case("https")),
        })
    }

    /// The host that this request is for. What a proxy passes on is believed
    /// where it is the gateway's domain, and the request's own host is not
    /// below that: a cache in front could otherwise be made to keep one DAG's
    /// content, or a redirect to it, under another's origin.
    pub(super) fn site(&self, domain: Option<&str>) -> &str {
        let name = |host: &str| host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match (domain, &self.forwarded_host) {
            (Some(domain), Some(forwarded))
                if name(forwarded) == domain && !name(&self.host).ends_with(domain) =>
            {
                forwarded
            }
            _ => &self.host,
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        format::value(&self.parameters, name).filter(|value| !value.is_empty())
    }

    /// A file name that the client gave.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.parameter("filename")
    }

    pub(super) fn is_download(&self) -> bool {
        self.parameter("download") == Some("true")
    }

    /// Whether a browser would show the answer.
    pub(super) fn is_rendered(&self) -> bool {
        self.negotiated.format == Format::Deserialized
    }

    /// The query with which a URL alone gives what was agreed on.
    pub(super) fn explicit_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        match self.negotiated.format {
            Format::Raw => query.append_pair("format", "raw"),
            Format::Document(document) => query.append_pair("format", document.name()),
            Format::Car(car) => query
                .append_pair("format", "car")
                .append_pair("car-version", "1")
                .append_pair("car-order", "dfs")
                .append_pair("car-dups", car.dups_text()),
            Format::Deserialized => &mut query,
        };
        for (name, value) in &self.parameters {
            if !matches!(name.as_str(), "format" | "car-version" | "car-order" | "car-dups") {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A list that may be spread over several headers.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}
