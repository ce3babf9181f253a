//! schemathesis against the OpenAPI document that the service generates: no
//! server error, and no status, content type or body that the document does
//! not name.

use std::time::Duration;

use pinfold_e2e::{
    pinfold::Pinfold,
    process::{command, finish_within, peer},
    test_within,
};

const LIMIT: Duration = Duration::from_secs(240);

/// What each answer is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

#[test]
fn every_answer_is_one_that_the_openapi_document_names() {
    test_within(LIMIT + Duration::from_secs(30), async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let mut fuzzer = command(peer("PINFOLD_E2E_SCHEMATHESIS")?);
        fuzzer.current_dir(place.folder("schemathesis")?);
        fuzzer.args(["run", &format!("{}/openapi.json", pinfold.endpoint), "--url", &pinfold.endpoint]);
        fuzzer.args(["--header", &format!("Authorization: Bearer {}", pinfold.token)]);
        fuzzer.args(["--checks", CHECKS, "--max-examples", "40", "--seed", "1", "--workers", "2"]);
        // Signed by nodes, and streams without an end: not for a fuzzer of forms.
        fuzzer.args(["--exclude-path-regex", "^/node/|/events$", "--request-timeout", "20"]);
        let finished = finish_within(&mut fuzzer, "schemathesis", LIMIT).await?;
        finished.success("schemathesis")?;
        Ok(())
    });
}
