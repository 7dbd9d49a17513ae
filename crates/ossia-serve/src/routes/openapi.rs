//! GET /openapi.json: the server's API as a program can read it (OpenAPI 3.1), made from the table of routes and the types
//! of their bodies. Any key reads it; it is the same for everybody, but what is not needed without a key is closed.

use std::sync::OnceLock;

use axum::Json;
use axum::routing::get;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::app::{Access, Route, table};

/// This file's part of the table.
pub fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/openapi.json", Access::AnyKey, get(openapi))]
}

/// What every error looks like.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used; error.rs writes the object")]
struct ErrorBody {
    /// The error.
    error: ErrorFields,
}

/// See [`ErrorBody`].
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used; error.rs writes the object")]
struct ErrorFields {
    /// For people.
    message: String,
    /// invalid_request_error, requests, tokens or server_error.
    #[schemars(rename = "type")]
    kind: String,
    /// The field that is to blame.
    param: Option<String>,
    /// For programs.
    code: Option<String>,
}

async fn openapi() -> Json<&'static Value> {
    static TEXT: OnceLock<Value> = OnceLock::new();
    Json(TEXT.get_or_init(|| describe(&table())))
}

/// The description of these routes.
pub fn describe(routes: &[Route]) -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator, &error);
        let path = paths.entry(plain(route.path)).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ossia", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &schemars::Schema) -> Value {
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let mut answer = json!({ "description": "Done" });
    if let Some(shape) = route.shapes.answer {
        answer["content"] = content(shape(generator).to_value());
    }
    let failure = json!({ "description": "What is wrong", "content": content(error.clone().to_value()) });
    let mut operation = json!({ "responses": { "200": answer, "default": failure } });
    if let Some(shape) = route.shapes.body {
        operation["requestBody"] = json!({ "required": true, "content": content(shape(generator).to_value()) });
    }
    let parameters: Vec<Value> = names(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    match route.access {
        Access::Open => operation["security"] = json!([]),
        Access::AnyKey => operation["security"] = json!([{ "key": [] }]),
        Access::Key(scope) => {
            operation["security"] = json!([{ "key": [] }]);
            operation["x-scope"] = json!(scope.name());
        }
    }
    operation
}

/// axum's `{*rest}` in OpenAPI's notation.
fn plain(path: &str) -> String {
    path.replace("{*", "{")
}

/// The names between braces.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::describe;
    use crate::app::table;

    /// Every reference of a document leads to a schema in it.
    fn check_references(value: &Value, schemas: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(target) = object.get("$ref").and_then(Value::as_str) {
                    let name = target.strip_prefix("#/components/schemas/").unwrap_or_else(|| panic!("{target}"));
                    assert!(schemas.get(name).is_some(), "{name}");
                }
                object.values().for_each(|value| check_references(value, schemas));
            }
            Value::Array(list) => list.iter().for_each(|value| check_references(value, schemas)),
            _ => {}
        }
    }

    #[test]
    fn all_routes_are_described() {
        let document = describe(&table());
        check_references(&document, &document["components"]["schemas"]);
        for route in table() {
            let operation = &document["paths"][super::plain(route.path)][route.method.to_lowercase()];
            assert!(operation["responses"]["200"].is_object(), "{} {}", route.method, route.path);
        }
        let chat = &document["paths"]["/v1/chat/completions"]["post"];
        assert_eq!(chat["x-scope"], "infer");
        let schema = &document["components"]["schemas"]["ChatRequest"];
        assert!(schema["properties"]["temperature"]["description"].is_string(), "{schema:#}");
        assert_eq!(schema["required"], json!(["messages"]));
        assert_eq!(document["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["name"], "id");
    }
}
