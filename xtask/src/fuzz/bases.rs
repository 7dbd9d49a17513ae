//! Good requests, one or more for every route: what mutations begin with. Between braces stand ids that exist. Answers are
//! short, so that many requests fit into a minute.

use crate::json::Json;

/// A good request.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// In capitals.
    pub method: &'static str,
    /// Path and query.
    pub target: &'static str,
    /// JSON, or nothing.
    pub body: &'static str,
}

const fn base(method: &'static str, target: &'static str, body: &'static str) -> Base {
    Base { method, target, body }
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";

/// All of them.
pub const BASES: &[Base] = &[
    base("POST", CHAT, r#"{"model":"nano","messages":[{"role":"user","content":"What is 2 + 3?"}],"max_tokens":3}"#),
    base(
        "POST",
        CHAT,
        r#"{"model":"nano","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi","name":"a"}],
        "max_tokens":2,"max_completion_tokens":2,"n":2,"seed":1,"temperature":1,"top_p":0.9,"top_k":40,"min_p":0.01,
        "presence_penalty":0.1,"frequency_penalty":0.1,"repetition_penalty":1.1,"logit_bias":{"5":1,"70":-100},
        "logprobs":true,"top_logprobs":2,"stop":["x","\n\n"],"stream":false,"reasoning_effort":"low",
        "reasoning":{"effort":"low"},"modalities":["text"],"parallel_tool_calls":true}"#,
    ),
    base(
        "POST",
        CHAT,
        r#"{"model":"nano","messages":[{"role":"user","content":[{"type":"text","text":"Weather in Oslo?"}]}],"stream":true,
        "stream_options":{"include_usage":true},"max_tokens":4,"tools":[{"type":"function","function":{"name":"get_weather",
        "description":"d","strict":true,"parameters":{"type":"object","properties":{"city":{"type":"string","maxLength":9},
        "days":{"type":"integer","minimum":1,"maximum":7}},"required":["city"],"additionalProperties":false}}}],
        "tool_choice":"required"}"#,
    ),
    base(
        "POST",
        CHAT,
        r##"{"messages":[{"role":"user","content":"Make one."}],"max_tokens":5,"temperature":0.5,"response_format":{
        "type":"json_schema","json_schema":{"name":"n","description":"d","strict":true,"schema":{"type":"object",
        "properties":{"a":{"type":"number","minimum":0,"exclusiveMaximum":9.5,"multipleOf":0.5},"b":{"enum":["x",1,null]},
        "c":{"type":"array","items":{"$ref":"#/$defs/s"},"minItems":1,"maxItems":2},"d":{"type":"string","pattern":"^[a-f]{2,5}$",
        "minLength":1},"e":{"anyOf":[{"type":"null"},{"type":"string","format":"date"}]}},"required":["a","b","c"],
        "additionalProperties":false,"$defs":{"s":{"type":"boolean"}}}}}}"##,
    ),
    base(
        "POST",
        CHAT,
        r#"{"messages":[{"role":"developer","content":"d"},{"role":"user","content":"q"},{"role":"assistant","content":null,
        "reasoning":"think","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
        {"role":"tool","tool_call_id":"call_1","content":"5"},{"role":"assistant","content":"So.","reasoning_content":"r",
        "thinking":"t","refusal":"no"},{"role":"user","content":[{"type":"text","text":"x"}]}],"max_tokens":2,
        "tools":[{"type":"function","function":{"name":"f","parameters":{}}},{"type":"custom","custom":{"name":"c","description":"d",
        "format":{"type":"grammar","grammar":{"syntax":"lark","definition":"start: \"a\" | /[b-d]+/"}}}}],
        "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}},
        {"type":"custom","custom":{"name":"c"}}]}},"response_format":{"type":"json_object"},"functions":null}"#,
    ),
    base(
        "POST",
        COMPLETIONS,
        r#"{"model":"nano","prompt":["One","Two"],"max_tokens":2,"n":2,"best_of":2,"echo":true,"logprobs":2,"stream":false,
        "stop":["z"],"seed":3,"temperature":0.9,"top_p":0.9,"top_k":9,"min_p":0,"presence_penalty":0,"frequency_penalty":0,
        "repetition_penalty":1,"logit_bias":{"9":-5},"suffix":null,"stream_options":null}"#,
    ),
    base(
        "POST",
        COMPLETIONS,
        r#"{"prompt":[[1,2,3],[400]],"max_tokens":2,"stream":true,"stream_options":{"include_usage":true},"logprobs":0}"#,
    ),
    base("POST", COMPLETIONS, r#"{"prompt":[5,6,7],"max_tokens":0,"echo":true,"logprobs":1}"#),
    base(
        "POST",
        RESPONSES,
        r#"{"model":"nano","input":"What is 2 + 3?","max_output_tokens":3,"store":false,"temperature":1,"top_p":1,"seed":1,
        "top_logprobs":2,"include":["message.output_text.logprobs","reasoning.encrypted_content"],"instructions":"i",
        "metadata":{"a":"b"},"max_tool_calls":3,"truncation":"disabled","user":"u","safety_identifier":"s","service_tier":"auto",
        "prompt_cache_key":"k","prompt_cache_retention":"24h","parallel_tool_calls":true,"stream":false,"background":false,
        "reasoning":{"effort":"low","summary":"auto","generate_summary":null},"text":{"format":{"type":"text"},"verbosity":"low"},
        "prompt":null}"#,
    ),
    base(
        "POST",
        RESPONSES,
        r#"{"model":"nano","stream":true,"store":false,"max_output_tokens":4,"input":[{"role":"user","content":[{"type":"input_text",
        "text":"q"}]},{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"t"}],
        "encrypted_content":null},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output",
        "call_id":"c1","output":"7"},{"type":"custom_tool_call","call_id":"c2","name":"g","input":"x","namespace":null},
        {"type":"custom_tool_call_output","call_id":"c2","output":[{"type":"input_text","text":"y"}]},{"type":"message","role":
        "assistant","phase":"commentary","content":[{"type":"output_text","text":"a"}]}],"tools":[{"type":"function","name":"f",
        "description":"d","strict":true,"parameters":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],
        "additionalProperties":false}},{"type":"custom","name":"g","format":{"type":"grammar","syntax":"regex","definition":
        "[a-z]{1,4}"}},{"type":"web_search"}],"tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false}"#,
    ),
    base(
        "POST",
        RESPONSES,
        r#"{"model":"nano","input":"Go on.","previous_response_id":"{resp}","max_output_tokens":2,"store":true,"text":{"format":{
        "type":"json_schema","name":"n","schema":{"type":"object","properties":{"a":{"type":"integer","maximum":99}},
        "required":["a"],"additionalProperties":false},"strict":true}}}"#,
    ),
    base(
        "POST",
        RESPONSES,
        r#"{"model":"nano","input":[{"type":"item_reference","id":"{item}"}],"conversation":{"id":"{conv}"},"store":false,
        "max_output_tokens":2,"stream":true}"#,
    ),
    base("POST", RESPONSES, r#"{"model":"nano","input":"x","background":true,"max_output_tokens":3,"stream":false}"#),
    base(
        "POST",
        "/v1/responses/compact",
        r#"{"model":"nano","input":[{"role":"user","content":"x"}],"max_output_tokens":4}"#,
    ),
    base(
        "POST",
        "/v1/responses/input_tokens",
        r#"{"input":[{"role":"user","content":"x"}],"instructions":"i","tools":[]}"#,
    ),
    base("GET", "/v1/responses/{resp}?stream=true&starting_after=1", ""),
    base("GET", "/v1/responses/{resp}", ""),
    base("POST", "/v1/responses/{resp}/cancel", ""),
    base("GET", "/v1/responses/{resp}/input_items?limit=3&order=asc", ""),
    base("DELETE", "/v1/responses/resp_000000000000000000000000000000000000000000000000", ""),
    base(
        "POST",
        "/v1/conversations",
        r#"{"items":[{"type":"message","role":"user","content":"x"}],"metadata":{"topic":"t"}}"#,
    ),
    base("GET", "/v1/conversations/{conv}", ""),
    base("POST", "/v1/conversations/{conv}", r#"{"metadata":{"topic":"other"}}"#),
    base("DELETE", "/v1/conversations/conv_000000000000000000000000000000000000000000000000", ""),
    base(
        "POST",
        "/v1/conversations/{conv}/items",
        r#"{"items":[{"role":"user","content":[{"type":"input_text","text":"y"}]},{"type":"message","role":"assistant","content":"z"}]}"#,
    ),
    base("GET", "/v1/conversations/{conv}/items?limit=2&order=desc&after={item}", ""),
    base("GET", "/v1/conversations/{conv}/items/{item}", ""),
    base("DELETE", "/v1/conversations/{conv}/items/msg_000000000000000000000000000000000000000000000000", ""),
    base("GET", "/v1/files?limit=5&order=asc&purpose=batch&after={file}", ""),
    base("GET", "/v1/files/{file}", ""),
    base("GET", "/v1/files/{file}/content", ""),
    base("DELETE", "/v1/files/file-000000000000000000000000000000000000000000000000", ""),
    base("POST", "/v1/files", r#"{"file":"x","purpose":"batch"}"#),
    base(
        "POST",
        "/v1/batches",
        r#"{"input_file_id":"{file}","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{"a":"b"}}"#,
    ),
    base("GET", "/v1/batches?limit=2&after={batch}", ""),
    base("GET", "/v1/batches/{batch}", ""),
    base("POST", "/v1/batches/{batch}/cancel", ""),
    // The files are for another purpose, or are none: nothing is trained.
    base(
        "POST",
        "/v1/fine_tuning/jobs",
        r#"{"model":"nano","training_file":"{file}","method":{"type":"dpo","dpo":{"hyperparameters":{"beta":0.1}}}}"#,
    ),
    base(
        "POST",
        "/v1/fine_tuning/jobs",
        r#"{"model":"nano","training_file":"{file}","method":{"type":"reinforcement","reinforcement":{"grader":{"type":
        "string_check","operation":"eq","input":"a","reference":"b"},"hyperparameters":{"compute_multiplier":1,
        "eval_interval":5,"eval_samples":9,"reasoning_effort":"low"}}}}"#,
    ),
    base("DELETE", "/v1/models/ft:nano:ossia::1", ""),
    base(
        "POST",
        "/v1/fine_tuning/jobs",
        r#"{"model":"nano","training_file":"file-000000000000000000000000000000000000000000000000","validation_file":null,
        "suffix":"s","seed":1,"metadata":{"a":"b"},"integrations":null,"method":{"type":"supervised","supervised":{"hyperparameters":
        {"batch_size":4,"learning_rate_multiplier":0.5,"n_epochs":1,"beta":"auto"}}},"hyperparameters":null}"#,
    ),
    base("GET", "/v1/fine_tuning/jobs?limit=3", ""),
    base("GET", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000", ""),
    base("POST", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/cancel", ""),
    base("POST", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/pause", ""),
    base("POST", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/resume", ""),
    base("GET", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/events?limit=2", ""),
    base("GET", "/v1/fine_tuning/jobs/ftjob-000000000000000000000000/checkpoints?after=ftckpt_1", ""),
    base(
        "POST",
        "/v1/fine_tuning/alpha/graders/run",
        r#"{"grader":{"type":"multi","graders":{"a":{"type":"text_similarity","evaluation_metric":"fuzzy_match","input":
        "{{sample.output_text}}","reference":"{{item.a}}"},"b":{"type":"numeric","reference":"{{item.b}}","tolerance":1}},
        "calculate_output":"0.5 * a + max(b, 0.25)"},"model_sample":"4 of them","item":{"a":"4","b":"4"}}"#,
    ),
    base(
        "POST",
        "/v1/fine_tuning/alpha/graders/validate",
        r#"{"grader":{"type":"json_check","schema":{"type":"object","required":["n"]},"fields":{"n":"{{item.n}}"}}}"#,
    ),
    base("POST", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions", r#"{"project_ids":["a"]}"#),
    base("GET", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions", ""),
    base("DELETE", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions/cp_1", ""),
    base("GET", "/v1/models", ""),
    base("GET", "/v1/models/nano", ""),
    base("GET", "/health", ""),
    base("GET", "/ready", ""),
    base("GET", "/metrics", ""),
    base("GET", "/openapi.json", ""),
    base("GET", "/api/version", ""),
    base("GET", "/api/tags", ""),
    base("GET", "/api/ps", ""),
    base("POST", "/api/show", r#"{"model":"nano","name":"nano","stream":false,"verbose":true}"#),
    base("POST", "/api/pull", r#"{"model":"nano","name":"nano","stream":true,"insecure":false}"#),
    base(
        "POST",
        "/api/chat",
        r#"{"model":"nano","messages":[{"role":"system","content":"s"},{"role":"user","content":"x","images":[]},{"role":"assistant",
        "content":"","thinking":"t","tool_calls":[{"id":"c","function":{"name":"f","arguments":{"a":1}}}]},{"role":"tool","content":"5",
        "tool_name":"f","name":"f","tool_call_id":"c"}],"stream":true,"think":"low","format":{"type":"object","properties":{"a":
        {"type":"integer"}}},"keep_alive":"5m","options":{"num_predict":3,"temperature":1,"top_p":0.9,"top_k":20,"min_p":0,
        "presence_penalty":0,"frequency_penalty":0,"repeat_penalty":1.1,"seed":4,"stop":["x"],"num_ctx":512},"tools":[{"type":
        "function","function":{"name":"f","parameters":{"type":"object"}}}]}"#,
    ),
    base(
        "POST",
        "/api/generate",
        r#"{"model":"nano","prompt":"x","system":"s","suffix":"","raw":false,"images":[],"stream":false,"format":"json","think":false,
        "context":[1,2],"template":"","options":{"num_predict":2,"temperature":0}}"#,
    ),
    base("GET", "/", ""),
    base("GET", "/ui/app.js", ""),
];

/// Bases that are refused although nothing in them is unknown: forms that are none, files for another purpose, models
/// that nobody made, permissions that there are none of.
pub const REFUSED: &[(&str, &str)] = &[
    ("POST", "/v1/files"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("DELETE", "/v1/models/ft:nano:ossia::1"),
    ("POST", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions"),
    ("GET", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions"),
    ("DELETE", "/v1/fine_tuning/checkpoints/ft:nano:ossia::1/permissions/cp_1"),
];

/// The bodies, read; None where a request has none.
pub fn bodies() -> Result<Vec<Option<Json>>, String> {
    let read = |base: &Base| match base.body {
        "" => Ok(None),
        body => Json::read(body.as_bytes()).map(Some).ok_or_else(|| format!("the body of {} is not JSON", base.target)),
    };
    BASES.iter().map(read).collect()
}

/// What the description of the API has and no base: routes, and fields of their bodies.
pub fn missing(description: &Json) -> Vec<String> {
    let mut missing = Vec::new();
    let Some(Json::Map(paths)) = description.get("paths") else {
        return vec!["the description has no paths".to_owned()];
    };
    for (path, operations) in paths {
        let path = String::from_utf8_lossy(path).into_owned();
        let Json::Map(operations) = operations else { continue };
        for (method, operation) in operations {
            let method = String::from_utf8_lossy(method).to_uppercase();
            let here: Vec<&Base> =
                BASES.iter().filter(|base| base.method == method && fits(&path, base.target)).collect();
            if here.is_empty() {
                missing.push(format!("{method} {path}"));
            }
            for field in fields(description, operation) {
                if !here.iter().any(|base| base.body.contains(&format!("\"{field}\":"))) {
                    missing.push(format!("{method} {path}: {field}"));
                }
            }
        }
    }
    missing
}

/// Whether the description of the API has a base's route: a program may be built without some.
pub fn is_described(description: &Json, base: &Base) -> bool {
    let Some(Json::Map(paths)) = description.get("paths") else { return false };
    let method = base.method.to_lowercase();
    let is_there = |(path, operations): &(Vec<u8>, Json)| {
        fits(&String::from_utf8_lossy(path), base.target) && operations.get(&method).is_some()
    };
    paths.iter().any(is_there)
}

/// Whether a request for `target` gets to the route `path`.
fn fits(path: &str, target: &str) -> bool {
    let target = target.split('?').next().unwrap_or_default();
    let (wanted, found): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), target.split('/').collect());
    wanted.len() == found.len()
        && wanted.iter().zip(found).all(|(wanted, found)| wanted.starts_with('{') || *wanted == found)
}

/// The names of the fields of an operation's body.
fn fields(description: &Json, operation: &Json) -> Vec<String> {
    let of =
        |value: &Json, names: &[&str]| names.iter().try_fold(value.clone(), |value, name| value.get(name).cloned());
    let schema = of(operation, &["requestBody", "content", "application/json", "schema"]);
    let name = schema.as_ref().and_then(|schema| schema.text("$ref")?.rsplit('/').next().map(str::to_owned));
    let properties = name.and_then(|name| of(description, &["components", "schemas", &name, "properties"]));
    match properties {
        Some(Json::Map(properties)) => {
            properties.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bodies, missing};
    use crate::json::Json;

    #[test]
    fn bodies_are_json() {
        assert!(bodies().unwrap().iter().flatten().count() > 20);
    }

    #[test]
    fn a_new_route_or_field_is_missed() {
        let description =
            br##"{"paths":{"/v1/new":{"get":{}},"/v1/models/{id}":{"get":{}},"/v1/completions":{"post":{"requestBody":
            {"content":{"application/json":{"schema":{"$ref":"#/components/schemas/C"}}}}}}},
            "components":{"schemas":{"C":{"properties":{"prompt":{},"newer":{}}}}}}"##;
        let told = missing(&Json::read(description).unwrap());
        assert_eq!(told, ["GET /v1/new", "POST /v1/completions: newer"]);
    }
}
