//! The OpenAPI document, generated from the handlers.

#![allow(unused_qualifications, reason = "the derives write them")]

mod refusals;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use std::sync::OnceLock;
use utoipa::{
    IntoParams, Modify, OpenApi, ToSchema,
    openapi::{
        self, Content, Object, ObjectBuilder, RefOr, Required, Schema, Type,
        schema::AdditionalProperties,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use self::refusals::Refusals;
use super::{
    accounts, error, events, health, pin_input, pins, routing, tokens,
    wire::{self, PinState},
};

/// Everything that clients may call. The node API is not for clients.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pinfold",
        description = "An open network of storage nodes behind a standard IPFS Pinning Service endpoint.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        pins::list, pins::add, pins::get, pins::replace, pins::remove,
        events::watch,
        accounts::get, tokens::list, tokens::create, tokens::revoke,
        routing::providers, health::live, health::ready,
    ),
    components(schemas(
        wire::PinResults, wire::PinStatus, wire::Pin, PinState, pin_input::PinInput, error::Failure,
    )),
    tags(
        (name = "pins", description = "The IPFS Pinning Service API"),
        (name = "account", description = "The caller's account and tokens"),
        (name = "routing", description = "Delegated routing, for anyone"),
        (name = "operation", description = "For load balancers"),
    ),
    security(("accessToken" = [])),
    modifiers(&AccessToken, &MetaAsJson, &DistinctItems, &Refusals),
)]
struct Document;

struct AccessToken;

impl Modify for AccessToken {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme("accessToken", SecurityScheme::Http(scheme));
        }
    }
}

/// The `meta` of a query is an object in JSON, which the derive cannot say.
struct MetaAsJson;

impl Modify for MetaAsJson {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let list = document.paths.paths.get_mut("/pins").and_then(|path| path.get.as_mut());
        let parameters = list.and_then(|list| list.parameters.as_mut());
        for parameter in parameters.into_iter().flatten() {
            let RefOr::T(parameter) = parameter else { continue };
            if parameter.name != "meta" {
                continue;
            }
            let text = RefOr::T(Schema::Object(Object::with_type(Type::String)));
            let pairs = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(text)));
            let pairs = RefOr::T(Schema::Object(pairs.build()));
            let content = Content::new(Some(pairs));
            parameter.schema = None;
            parameter.content.insert("application/json".to_owned(), RefOr::T(content));
            parameter.required = Required::False;
        }
    }
}

/// Lists whose items differ from each other, which the derives cannot say.
struct DistinctItems;

/// Lists in schemas, and those in the query of `GET /pins`.
const DISTINCT: [(&str, &str); 4] =
    [("PinStatus", "delegates"), ("PinResults", "results"), ("Pin", "origins"), ("PinInput", "origins")];
const DISTINCT_IN_QUERY: [&str; 2] = ["cid", "status"];

impl Modify for DistinctItems {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for (schema, property) in DISTINCT {
            let schema = document.components.as_mut().and_then(|all| all.schemas.get_mut(schema));
            if let Some(RefOr::T(Schema::Object(object))) = schema
                && let Some(list) = object.properties.get_mut(property)
            {
                make_distinct(list);
            }
        }
        let list = document.paths.paths.get_mut("/pins").and_then(|path| path.get.as_mut());
        for parameter in list.and_then(|list| list.parameters.as_mut()).into_iter().flatten() {
            if let RefOr::T(parameter) = parameter
                && DISTINCT_IN_QUERY.contains(&parameter.name.as_str())
                && let Some(list) = &mut parameter.schema
            {
                make_distinct(list);
            }
        }
    }
}

fn make_distinct(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Array(list)) = schema {
        list.unique_items = true;
    }
}

/// The query of `GET /pins`; read by hand in `query`, described here.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a query that is read by hand")]
pub(crate) struct ListParameters {
    /// Only these CIDs, whatever version and base they are written in.
    #[param(style = Form, explode = false, min_items = 1, max_items = 10)]
    cid: Option<Vec<String>>,
    /// Only pins with this name.
    #[param(max_length = 255)]
    name: Option<String>,
    /// How names are compared.
    #[param(inline)]
    r#match: Option<TextMatch>,
    /// Only pins in these states; those that are pinned when absent.
    #[param(style = Form, explode = false, min_items = 1)]
    status: Option<Vec<PinState>>,
    /// Only pins created strictly before.
    #[param(format = DateTime)]
    before: Option<String>,
    /// Only pins created strictly after.
    #[param(format = DateTime)]
    after: Option<String>,
    /// The most pins in the answer.
    #[param(value_type = i32, format = Int32, minimum = 1, maximum = 1000, default = 10, required = false)]
    limit: Option<i32>,
    /// Only pins with all of these pairs: a JSON object with text values. The
    /// form `meta[key]=value` is read as well. Keys and values have at most
    /// 16,384 bytes in all; a query has at most 1,100 parameters.
    meta: Option<String>,
}

/// How names are compared.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", default = "exact")]
#[expect(dead_code, reason = "describes a query that is read by hand")]
enum TextMatch {
    Exact,
    Iexact,
    Partial,
    Ipartial,
}

/// The document as it is served and as it is kept under test.
#[must_use]
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().expect("the document is plain data");
    text.push('\n');
    text
}

/// `GET /openapi.json`.
pub(crate) async fn serve() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().into()).clone();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, text).into_response()
}
