//! The OpenAPI document: against its snapshot, and against the Pinning Service
//! API 1.0.0.
//!
//! `tests/contract` holds what that specification demands, written anew:
//! operations, parameters, bounds, schemas. Our document must keep it. Where
//! the environment names the official text (`PINFOLD_SPEC`, a YAML file), that is
//! held against the contract too, so that the contract itself is tested.

use std::{env, fs, path::Path};

use pinfold_service::api::openapi;
use serde_json::{Map, Value};

const CONTRACT: &str = include_str!("../contract/pinning-service-1.0.0.json");
const SNAPSHOT: &str = "tests/contract/openapi.json";

#[test]
fn the_document_is_as_it_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SNAPSHOT);
    let now = openapi::document();
    if env::var_os("PINFOLD_BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let reviewed = fs::read_to_string(&path).unwrap_or_default();
    assert!(now == reviewed, "the OpenAPI document changed; review it with PINFOLD_BLESS=1 and git diff");
}

#[test]
fn our_document_keeps_the_contract() {
    let document = serde_json::from_str(&openapi::document()).unwrap();
    assert_eq!(Check::new(&document, Side::Ours).run(), Vec::<String>::new());
}

/// `cargo xtask test` leaves it out, and counts that, where the official text
/// is not at hand.
#[test]
fn the_official_specification_is_the_contract() {
    let Some(path) = env::var_os("PINFOLD_SPEC") else {
        eprintln!("left out: PINFOLD_SPEC does not name the official specification");
        return;
    };
    let text = fs::read_to_string(path).unwrap();
    let document: Value = yaml_serde::from_str(&text).unwrap();
    assert_eq!(Check::new(&document, Side::Official).run(), Vec::<String>::new());
}

#[test]
fn a_broken_bound_is_found() {
    let text = openapi::document().replace("\"maximum\": 1000", "\"maximum\": 999");
    let document = serde_json::from_str(&text).unwrap();
    assert_ne!(Check::new(&document, Side::Ours).run(), Vec::<String>::new());
}

#[test]
fn a_failure_that_is_not_named_is_found() {
    let mut document: Value = serde_json::from_str(&openapi::document()).unwrap();
    document["paths"]["/pins"]["post"]["responses"].as_object_mut().unwrap().remove("409").unwrap();
    assert_ne!(Check::new(&document, Side::Ours).run(), Vec::<String>::new());
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ours,
    Official,
}

/// Holds a document against the contract and collects what differs.
struct Check<'a> {
    document: &'a Value,
    contract: Value,
    side: Side,
    differences: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(document: &'a Value, side: Side) -> Self {
        let contract = serde_json::from_str(CONTRACT).unwrap();
        Self { document, contract, side, differences: Vec::new() }
    }

    fn run(mut self) -> Vec<String> {
        for operation in self.contract["operations"].as_array().unwrap().clone() {
            self.operation(&operation);
        }
        let schemes = self.document["components"]["securitySchemes"].as_object().unwrap();
        let bearer = schemes.values().any(|scheme| {
            scheme["type"] == self.contract["security"]["type"]
                && scheme["scheme"] == self.contract["security"]["scheme"]
        });
        self.expect(bearer, "no bearer token");
        self.differences
    }

    fn expect(&mut self, holds: bool, text: impl Into<String>) {
        if !holds {
            self.differences.push(text.into());
        }
    }

    fn resolve(&self, value: &Value) -> Value {
        let mut value = value.clone();
        while let Some(reference) = value["$ref"].as_str() {
            value = self.document.pointer(reference.trim_start_matches('#')).unwrap().clone();
        }
        value
    }

    fn operation(&mut self, wanted: &Value) {
        let name = wanted["operationId"].as_str().unwrap();
        let found =
            &self.document["paths"][wanted["path"].as_str().unwrap()][wanted["method"].as_str().unwrap()];
        self.expect(found["operationId"] == wanted["operationId"], format!("{name} is missing"));
        for parameter in wanted["parameters"].as_array().into_iter().flatten() {
            self.parameter(name, parameter.as_str().unwrap(), &found["parameters"]);
        }
        if let Some(body) = wanted["body"].as_str() {
            let schema = found["requestBody"]["content"]["application/json"]["schema"].clone();
            self.expect(found["requestBody"]["required"] == true, format!("{name}: the body is optional"));
            self.schema(&format!("{name} body"), &self.contract["schemas"][body].clone(), &schema);
        }
        self.success(name, &wanted["success"], &found["responses"]);
        for failure in wanted["failures"].as_array().unwrap() {
            self.failure(name, failure.as_str().unwrap(), &found["responses"]);
        }
    }

    fn parameter(&mut self, operation: &str, name: &str, found: &Value) {
        let wanted = self.contract["parameters"][name].clone();
        let at = format!("{operation} ?{name}");
        let all: Vec<Value> = found.as_array().unwrap().iter().map(|found| self.resolve(found)).collect();
        let Some(found) = all.iter().find(|found| found["name"] == name && found["in"] == "query") else {
            return self.differences.push(format!("{at} is missing"));
        };
        self.expect(found["required"] != true, format!("{at} is required"));
        for key in ["style", "explode"] {
            self.expect(wanted[key].is_null() || found[key] == wanted[key], format!("{at}: {key}"));
        }
        let schema = match wanted["content"].as_str() {
            Some(kind) => &found["content"][kind]["schema"],
            None => &found["schema"],
        };
        self.schema(&at, &wanted["schema"], schema);
    }

    fn success(&mut self, operation: &str, wanted: &Value, found: &Value) {
        let status = wanted["status"].as_str().unwrap();
        let answer = self.resolve(&found[status]);
        self.expect(answer.is_object(), format!("{operation} does not answer {status}"));
        if let Some(schema) = wanted["schema"].as_str() {
            let found = &answer["content"]["application/json"]["schema"];
            self.schema(&format!("{operation} {status}"), &self.contract["schemas"][schema].clone(), found);
        }
    }

    /// A status that is named must be named; a range stands for further ones,
    /// of which we name each, and the specification none.
    fn failure(&mut self, operation: &str, status: &str, found: &Value) {
        let is_named = |found: &&String| found.parse::<u16>().is_ok() && found[..1] == status[..1];
        let answers: Vec<String> = match status.ends_with("XX") && self.side == Side::Ours {
            true => found.as_object().unwrap().keys().filter(is_named).cloned().collect(),
            false => vec![status.to_owned()],
        };
        self.expect(!answers.is_empty(), format!("{operation} has no {status}"));
        self.expect(
            self.side == Side::Official || found.get(status).is_none() || !status.ends_with("XX"),
            format!("{operation} names the range {status}"),
        );
        let wanted = self.contract["schemas"]["Failure"].clone();
        for status in answers {
            let answer = self.resolve(&found[&status]);
            let schema = &answer["content"]["application/json"]["schema"];
            self.schema(&format!("{operation} {status}"), &wanted, schema);
        }
    }

    fn schema(&mut self, at: &str, wanted: &Value, found: &Value) {
        let found = self.plain(found);
        if let Some(name) = wanted["schema"].as_str() {
            let wanted = self.contract["schemas"][name].clone();
            return self.schema(at, &wanted, &found);
        }
        for (key, wanted) in wanted.as_object().unwrap() {
            self.keyword(at, key, wanted, &found[key]);
        }
    }

    fn keyword(&mut self, at: &str, key: &str, wanted: &Value, found: &Value) {
        match key {
            "properties" => {
                for (name, wanted) in wanted.as_object().unwrap() {
                    self.schema(&format!("{at}.{name}"), wanted, &found[name]);
                }
            }
            "items" | "additionalProperties" => self.schema(&format!("{at}.{key}"), wanted, found),
            "required" => {
                let has = |name: &Value| found.as_array().is_some_and(|found| found.contains(name));
                let all = wanted.as_array().unwrap().iter().all(has);
                self.expect(all, format!("{at}: required is {found}"));
            }
            // What is not said is 0.
            "minItems" if wanted == 0 && found.is_null() => {}
            _ => self.expect(found == wanted, format!("{at}: {key} is {found}, not {wanted}")),
        }
    }

    /// A schema without references, and without the ways in which 3.1 says
    /// what 3.0 said: a nullable type, one alternative.
    fn plain(&self, schema: &Value) -> Value {
        let mut plain = self.resolve(schema);
        for key in ["allOf", "oneOf"] {
            if let Some([one]) = plain[key].as_array().map(Vec::as_slice) {
                let mut whole: Map<String, Value> = self.plain(one).as_object().unwrap().clone();
                whole.extend(plain.as_object().unwrap().clone());
                plain = whole.into();
            }
        }
        if let Some(types) = plain["type"].as_array() {
            let one = types.iter().find(|kind| *kind != "null").unwrap().clone();
            plain["type"] = one;
        }
        plain
    }
}
