//! The failures of each operation, one by one: a document that named a range
//! would call any wrong status right.

use utoipa::{
    Modify,
    openapi::{
        Content, OpenApi, Ref, RefOr, Response, ResponseBuilder,
        header::HeaderBuilder,
        path::Operation,
        schema::{ObjectBuilder, Type},
    },
};

/// Failures of every operation.
const EVERY: [u16; 3] = [429, 500, 503];

/// Failures of operations that need a token. The specification has 404 of
/// each: an account may be gone.
const WITH_TOKEN: [u16; 3] = [401, 403, 404];

/// Failures of operations with a body.
const WITH_BODY: [u16; 3] = [400, 408, 413];

/// Further failures, by operation. The specification has 400 and 409 of each
/// of its five.
const FURTHER: [(&str, &[u16]); 7] = [
    ("getPins", &[400, 409]),
    ("addPin", &[409]),
    ("getPinByRequestId", &[400, 409]),
    ("replacePinByRequestId", &[409]),
    ("deletePinByRequestId", &[400, 409]),
    ("createToken", &[409]),
    ("getProviders", &[422]),
];

/// Operations for load balancers, which describe their answers themselves.
const OPERATION: &str = "operation";

/// Adds the failures to a document.
pub(super) struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut OpenApi) {
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.post, &mut path.delete];
            operations.into_iter().flatten().for_each(describe);
        }
    }
}

fn describe(operation: &mut Operation) {
    if operation.tags.iter().flatten().any(|tag| tag == OPERATION) {
        return;
    }
    for status in statuses(operation) {
        operation.responses.responses.insert(status.to_string(), RefOr::T(failure(status)));
    }
}

fn statuses(operation: &Operation) -> Vec<u16> {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let further = FURTHER.iter().find(|(of, _)| *of == id).map_or(&[][..], |(_, statuses)| statuses);
    // An operation without a token says so; the others have the document's.
    let with_token = if operation.security.is_none() { &WITH_TOKEN[..] } else { &[] };
    let with_body = if operation.request_body.is_some() { &WITH_BODY[..] } else { &[] };
    [&EVERY, with_token, with_body, further].concat()
}

fn failure(status: u16) -> Response {
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Failure"))));
    let response =
        ResponseBuilder::new().description(description(status)).content("application/json", content);
    if ![429, 503].contains(&status) {
        return response.build();
    }
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
    let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait"));
    response.header("Retry-After", header.build()).build()
}

fn description(status: u16) -> &'static str {
    match status {
        400 => "The request breaks a rule, which the details name",
        401 => "There is no token, or it is not valid",
        403 => "The token may not do this, the account is disabled, or the content is denied",
        404 => "There is no such thing, or it is another account's",
        408 => "The body did not arrive in time",
        409 => "The state of the account forbids it, such as its quota",
        413 => "The body is too large",
        422 => "The path names no CID",
        429 => "Too many requests; to be sent again after a pause",
        503 => "It cannot be served now; to be sent again after a pause",
        _ => "The service failed",
    }
}

#[cfg(test)]
mod tests {
    use utoipa::OpenApi as _;

    use super::*;

    fn operations() -> Vec<Operation> {
        let paths = super::super::Document::openapi().paths.paths.into_values();
        paths.flat_map(|path| [path.get, path.post, path.delete]).flatten().collect()
    }

    #[test]
    fn every_exception_is_of_an_operation() {
        let known: Vec<_> = operations().into_iter().filter_map(|operation| operation.operation_id).collect();
        for (id, _) in FURTHER {
            assert!(known.iter().any(|known| known == id), "{id}");
        }
    }

    #[test]
    fn no_operation_names_a_range_and_each_has_its_own_failures() {
        for operation in operations() {
            let id = operation.operation_id.as_deref().unwrap();
            let statuses: Vec<_> = operation.responses.responses.keys().collect();
            assert!(statuses.iter().all(|status| status.parse::<u16>().is_ok()), "{id}: {statuses:?}");
            let is_open = operation.security.is_some();
            assert_eq!(operation.responses.responses.contains_key("401"), !is_open, "{id}");
        }
    }
}
