//! Dkron's JSON to [`JobSpec`]: what a client may write.
//!
//! Read as leniently as Dkron reads: `null` stands for any field, keys match whatever their case,
//! unknown fields and what the cluster maintains itself (`id`, `next`, counters, `status`) are
//! ignored, and so is everything after the first JSON value. But a field that Dkron knows and
//! Cronclave has no function for yet is refused by name: a job must not silently do less than it
//! says.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::id::JobName;
use crate::jobs::job::{Concurrency, JobSpec};
use crate::time::Wall;

/// The only executor.
pub const EXECUTOR: &str = "shell";

/// What the shell executor can be told.
const SHELL_KEYS: [&str; 8] =
    ["command", "cwd", "env", "mem_limit", "payload", "shell", "su", "timeout"];

/// Why a text is no job. Nothing was changed; the client has to send another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It is no JSON, or a field has the wrong type.
    #[error("Unable to parse payload: {0}")]
    Payload(String),
    /// It can be read, but is no job that can be run.
    #[error("Job validation failed: {0}.")]
    Invalid(String),
}

/// Reads a job. `check` looks at what takes other modules to judge (schedule, time zone, durations)
/// and comes last; its text becomes [`SpecError::Invalid`].
///
/// # Errors
/// If `bytes` is no JSON object, or the job in it is not valid.
pub fn parse_job(
    bytes: &[u8],
    check: &dyn Fn(&JobSpec) -> Result<(), String>,
) -> Result<JobSpec, SpecError> {
    let body = serde_json::Deserializer::from_slice(bytes).into_iter::<Body>().next();
    let mut fields = match body {
        None => return Err(SpecError::Payload("the body is empty".to_owned())),
        Some(Err(error)) => return Err(SpecError::Payload(error.to_string())),
        Some(Ok(Body::Object(fields))) => Fields::new(fields),
        Some(Ok(Body::Other(other))) => return Err(expected("the body", "an object", &other)),
    };
    let spec = read(&mut fields)?;
    refuse_unsupported(&mut fields, &spec)?;
    check(&spec).map_err(SpecError::Invalid)?;
    Ok(spec)
}

fn read(fields: &mut Fields) -> Result<JobSpec, SpecError> {
    let name = JobName::new(&fields.text("name")?);
    Ok(JobSpec {
        name: name.map_err(|error| SpecError::Invalid(error.to_string()))?,
        displayname: fields.text("displayname")?,
        schedule: fields.text("schedule")?,
        timezone: fields.text("timezone")?,
        owner: fields.text("owner")?,
        owner_email: fields.text("owner_email")?,
        disabled: fields.flag("disabled")?,
        tags: fields.texts("tags")?,
        metadata: fields.texts("metadata")?,
        retries: fields.count("retries")?,
        concurrency: fields.concurrency("concurrency")?,
        executor: fields.text("executor")?,
        executor_config: fields.texts("executor_config")?,
        ephemeral: fields.flag("ephemeral")?,
        starts_at: fields.time("starts_at")?,
        expires_at: fields.time("expires_at")?,
    })
}

fn refuse_unsupported(fields: &mut Fields, spec: &JobSpec) -> Result<(), SpecError> {
    let invalid = |text: String| Err(SpecError::Invalid(text));
    let parent = fields.text("parent_job")?;
    if parent == spec.name.as_str() {
        return invalid("the job can not have itself as parent".to_owned());
    }
    if !parent.is_empty() {
        return invalid(format!(
            "parent_job {parent:?} has no function yet: leave it out and give the job a schedule"
        ));
    }
    for field in ["dependent_jobs", "processors"] {
        if !fields.take(field).is_none_or(|value| is_empty(&value)) {
            return invalid(format!("{field} has no function yet: leave it out"));
        }
    }
    if spec.executor != EXECUTOR {
        return invalid(format!(
            "executor {:?} is not known, the only one is {EXECUTOR:?}",
            spec.executor
        ));
    }
    let unknown = spec.executor_config.keys().find(|key| !SHELL_KEYS.contains(&key.as_str()));
    if let Some(key) = unknown {
        return invalid(format!(
            "executor_config has a key {key:?} that the shell executor does not know, it knows {}",
            SHELL_KEYS.join(", ")
        ));
    }
    if spec.executor_config.get("command").is_none_or(|command| command.trim().is_empty()) {
        return invalid("executor_config needs a command for the shell executor".to_owned());
    }
    Ok(())
}

/// A JSON value; an object's fields in the order in which they stand.
enum Body {
    Object(Vec<(String, Value)>),
    Other(Value),
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Body::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Body, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Body::Other(Value::Array(items)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Body, E> {
        Ok(Body::Other(Value::from(text)))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Body, E> {
        Ok(Body::Other(Value::from(flag)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Body, E> {
        Ok(Body::Other(Value::from(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Body, E> {
        Ok(Body::Other(Value::from(number)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Body, E> {
        Ok(Body::Other(Value::from(number)))
    }

    fn visit_unit<E>(self) -> Result<Body, E> {
        Ok(Body::Other(Value::Null))
    }
}

/// The fields of an object by their names in lower case; `null` stands for one that was taken. A
/// job has few, so a list is searched faster than a tree is built.
struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Of several of one name the last counts, so those in another case come first.
    fn new(fields: Vec<(String, Value)>) -> Self {
        if fields.iter().all(|(key, _)| is_lower(key)) {
            return Self(fields);
        }
        let (lower, mut other): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|(key, _)| is_lower(key));
        other.sort_by(|(a, _), (b, _)| b.cmp(a));
        let other = other.into_iter().map(|(key, value)| (key.to_lowercase(), value));
        Self(other.chain(lower).collect())
    }

    /// `None` also for `null`.
    fn take(&mut self, field: &str) -> Option<Value> {
        let (_, value) = self.0.iter_mut().rfind(|(key, _)| key == field)?;
        Some(std::mem::take(value)).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &str) -> Result<String, SpecError> {
        match self.take(field) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(expected(field, "a string", &other)),
        }
    }

    fn flag(&mut self, field: &str) -> Result<bool, SpecError> {
        match self.take(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(expected(field, "true or false", &other)),
        }
    }

    fn count(&mut self, field: &str) -> Result<u32, SpecError> {
        let Some(value) = self.take(field) else { return Ok(0) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.ok_or_else(|| expected(field, "a whole number from 0 to 4294967295", &value))
    }

    fn texts(&mut self, field: &str) -> Result<BTreeMap<String, String>, SpecError> {
        let object = match self.take(field) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(object)) => object,
            Some(other) => return Err(expected(field, "an object of strings", &other)),
        };
        let text = |(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Null => Ok((key, String::new())),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(expected(&format!("{field}.{key}"), "a string", &other))
            }
        };
        object.into_iter().map(text).collect()
    }

    fn concurrency(&mut self, field: &str) -> Result<Concurrency, SpecError> {
        match self.text(field)?.as_str() {
            "" | "allow" => Ok(Concurrency::Allow),
            "forbid" => Ok(Concurrency::Forbid),
            _ => Err(SpecError::Invalid(
                "invalid concurrency policy value, use \"allow\" or \"forbid\"".to_owned(),
            )),
        }
    }

    fn time(&mut self, field: &str) -> Result<Option<Wall>, SpecError> {
        let text = match self.take(field) {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(other) => return Err(expected(field, "a time", &other)),
        };
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(&text) {
            return Ok(Some(Wall::from_utc(&time)));
        }
        match chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M") {
            Ok(time) => Ok(Some(Wall::from_utc(&time.and_utc()))),
            Err(_) => Err(SpecError::Payload(format!(
                "{field} {text:?} is no time: write it as 2026-11-23T02:00:00Z, or in UTC as \
                 2026-11-23T02:00"
            ))),
        }
    }
}

fn is_lower(key: &str) -> bool {
    match key.is_ascii() {
        true => !key.bytes().any(|byte| byte.is_ascii_uppercase()),
        false => key == key.to_lowercase(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn expected(field: &str, what: &str, found: &Value) -> SpecError {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => found.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    SpecError::Payload(format!("{field} must be {what}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JobSpec, String> {
        parse_job(text.as_bytes(), &|_| Ok(())).map_err(|error| error.to_string())
    }

    fn with(field: &str) -> Result<JobSpec, String> {
        parse(&format!(
            r#"{{"name":"a","executor":"shell","executor_config":{{"command":"date"}},{field}}}"#
        ))
    }

    #[test]
    fn a_job_is_read_as_leniently_as_dkron_reads_it() {
        let spec = parse(
            r#"{"Name":"nightly","SCHEDULE":"@every 1m","executor":"shell","tags":null,
                "executor_config":{"command":"date","cwd":null},"metadata":{"team":"a"},
                "id":"other","next":"0001-01-01T00:00:00Z","success_count":9,"colour":"red",
                "retries":2,"concurrency":"","processors":{},"dependent_jobs":null} trailing"#,
        )
        .unwrap();
        assert_eq!(spec.name.as_str(), "nightly");
        assert_eq!(spec.schedule, "@every 1m");
        assert_eq!(spec.retries, 2);
        assert_eq!(spec.concurrency, Concurrency::Allow);
        assert_eq!(spec.executor_config["cwd"], "");
        assert_eq!(spec.metadata["team"], "a");
        assert!(spec.tags.is_empty());
    }

    #[test]
    fn a_key_in_the_right_case_counts_before_one_in_another() {
        assert_eq!(with(r#""OWNER":"b","owner":"c","Owner":"d""#).unwrap().owner, "c");
        assert_eq!(with(r#""owner":"b","OWNER":"c","owner":"d""#).unwrap().owner, "d");
        assert_eq!(with(r#""Owner":"b","OWNER":"c","OWNER":"d""#).unwrap().owner, "d");
    }

    #[test]
    fn errors_are_worded_as_dkron_words_them() {
        let error = |text| parse(text).unwrap_err();
        assert_eq!(error("{}"), "Job validation failed: name cannot be empty.");
        assert_eq!(
            error(r#"{"name":"Big"}"#),
            "Job validation failed: name contains illegal character 'B'."
        );
        assert_eq!(
            with(r#""concurrency":"replace""#).unwrap_err(),
            "Job validation failed: invalid concurrency policy value, use \"allow\" or \
             \"forbid\"."
        );
        assert_eq!(
            with(r#""parent_job":"a""#).unwrap_err(),
            "Job validation failed: the job can not have itself as parent."
        );
        assert!(error("").starts_with("Unable to parse payload: "));
        assert!(error("{\"name\":").starts_with("Unable to parse payload: "));
        assert_eq!(
            error("[]"),
            "Unable to parse payload: the body must be an object, not an array"
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field() {
        assert_eq!(
            with(r#""retries":-1"#).unwrap_err(),
            "Unable to parse payload: retries must be a whole number from 0 to 4294967295, not -1"
        );
        assert_eq!(
            with(r#""tags":{"role":1}"#).unwrap_err(),
            "Unable to parse payload: tags.role must be a string, not 1"
        );
        assert_eq!(
            with(r#""disabled":"yes""#).unwrap_err(),
            "Unable to parse payload: disabled must be true or false, not a string"
        );
    }

    #[test]
    fn what_has_no_function_yet_is_refused_by_name() {
        for (field, name) in [
            (r#""parent_job":"b""#, "parent_job"),
            (r#""processors":{"log":{}}"#, "processors"),
            (r#""dependent_jobs":["b"]"#, "dependent_jobs"),
            (r#""executor":"http""#, "executor \"http\""),
            (r#""executor_config":{}"#, "command"),
            (r#""executor_config":{"command":"a","memory_limit":"1"}"#, "mem_limit"),
        ] {
            let error = with(field).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn starts_and_expiries_are_rfc_3339_or_minutes_in_utc() {
        let spec =
            with(r#""starts_at":"1970-01-01T01:00:01+01:00","expires_at":"1970-01-01T00:01""#);
        let spec = spec.unwrap();
        assert_eq!(spec.starts_at, Some(Wall::from_secs(1)));
        assert_eq!(spec.expires_at, Some(Wall::from_secs(60)));
        assert!(with(r#""starts_at":"tomorrow""#).unwrap_err().contains("tomorrow"));
    }

    #[test]
    fn the_callers_check_comes_last_and_is_quoted() {
        let text = br#"{"name":"a","executor":"shell","executor_config":{"command":"date"}}"#;
        let error = parse_job(text, &|_| Err("can't parse job schedule: x".to_owned()));
        assert_eq!(
            error.unwrap_err().to_string(),
            "Job validation failed: can't parse job schedule: x."
        );
    }
}
