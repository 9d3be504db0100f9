//! What a client asks for, parsed once into types that cannot hold a bad value.
//!
//! Each field is read by hand, so that an error can name it, its value and what is allowed.

use serde_json::{Map, Value};

use crate::answer::MODEL;
use crate::error::RequestError;
use crate::sessions::SessionId;

/// One completion, as asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Request {
    /// The text to go on from: neither empty nor long.
    pub(crate) prompt: String,
    /// How many tokens to answer with.
    pub(crate) max_tokens: usize,
    /// Whose cache to go on with, and to keep.
    pub(crate) session: Option<SessionId>,
    /// How freely to choose among the likely tokens.
    pub(crate) temperature: f32,
    /// Whether to send each token as it comes, or the whole at the end.
    pub(crate) stream: bool,
}

impl Request {
    /// Reads the body of a request.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let fields =
            serde_json::from_slice(body).map_err(|why| RequestError::NotJson(why.to_string()))?;
        let mut fields = Fields(fields);
        // What the clients of such services always send. There is but one model.
        fields.take("model", "\"nemotron-stub\" is allowed", |value| {
            (value.as_str()? == MODEL).then_some(())
        })?;
        let request = Self {
            prompt: fields.take("prompt", PROMPT_ALLOWED, prompt)?.ok_or_else(|| {
                RequestError::Field {
                    name: "prompt",
                    value: "missing".into(),
                    allowed: PROMPT_ALLOWED,
                }
            })?,
            max_tokens: fields
                .take("max_tokens", "a whole number from 1 to 512 is allowed", max_tokens)?
                .unwrap_or(DEFAULT_TOKENS),
            session: fields
                .take("session", SessionId::ALLOWED, |value| value.as_str()?.parse().ok())?,
            temperature: fields
                .take("temperature", "a number from 0 to 2 is allowed", temperature)?
                .unwrap_or(1.0),
            stream: fields
                .take("stream", "true and false are allowed", Value::as_bool)?
                .unwrap_or(true),
        };
        match fields.0.into_iter().next() {
            Some((name, _)) => Err(RequestError::UnknownField(shortened(name))),
            None => Ok(request),
        }
    }
}

/// How many tokens to answer with, where the request does not say.
const DEFAULT_TOKENS: usize = 64;
/// The most tokens that may be asked for.
const MAX_TOKENS: u64 = 512;
/// The most bytes of a prompt. What it comes to in tokens is found off the threads that serve.
const MAX_PROMPT: usize = 8 << 10;
const PROMPT_ALLOWED: &str = "a text of 1 to 8192 bytes is allowed";

/// The fields that nobody has looked at yet.
struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a field; none where it is absent, or null as some clients put it.
    fn take<T>(
        &mut self,
        name: &'static str,
        allowed: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| {
                let value = shortened(value.to_string());
                RequestError::Field { name, value, allowed }
            }),
        }
    }
}

fn prompt(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (1..=MAX_PROMPT).contains(&text.len()).then(|| text.into())
}

fn max_tokens(value: &Value) -> Option<usize> {
    let count = value.as_u64().filter(|count| (1..=MAX_TOKENS).contains(count))?;
    usize::try_from(count).ok()
}

fn temperature(value: &Value) -> Option<f32> {
    let temperature = value.as_f64().filter(|degrees| (0.0..=2.0).contains(degrees))?;
    Some(temperature as f32)
}

/// A value as an error may show it: its beginning, and how long it is.
pub(crate) fn shortened(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// The most characters of a value that an error repeats.
const SHOWN: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_enough() {
        let expect = Request {
            prompt: "Why?".into(),
            max_tokens: 64,
            session: None,
            temperature: 1.0,
            stream: true,
        };
        assert_eq!(parse(r#"{"prompt": "Why?"}"#), expect);
        let nulls = r#"{"prompt": "Why?", "session": null, "max_tokens": null, "stream": null}"#;
        assert_eq!(parse(nulls), expect);
    }

    #[test]
    fn every_field_is_read() {
        let body = r#"{"prompt": "Why?", "max_tokens": 512, "session": "a.b-C_1",
            "temperature": 0, "stream": false, "model": "nemotron-stub"}"#;
        let expect = Request {
            prompt: "Why?".into(),
            max_tokens: 512,
            session: "a.b-C_1".parse().ok(),
            temperature: 0.0,
            stream: false,
        };
        assert_eq!(parse(body), expect);
        assert!(expect.session.is_some());
    }

    #[test]
    fn an_error_names_the_field_the_value_and_what_is_allowed() {
        #[track_caller]
        fn check(body: &str, expect: &[&str]) {
            let Err(error) = Request::parse(body.as_bytes()) else { panic!("accepted") };
            for part in expect {
                assert!(error.to_string().contains(part), "{error} lacks {part}");
            }
        }
        check("", &["not a JSON object"]);
        check("[1]", &["not a JSON object"]);
        check("{}", &["prompt is missing", "1 to 8192 bytes"]);
        check(r#"{"prompt": ""}"#, &["prompt is \"\"", "1 to 8192 bytes"]);
        check(r#"{"prompt": ["a"]}"#, &["prompt is [\"a\"]"]);
        let long = format!(r#"{{"prompt": "{}"}}"#, "\u{e4}".repeat(5000));
        check(&long, &["prompt is \"\u{e4}", "\u{2026} (10002 bytes)", "1 to 8192 bytes"]);
        for bad in ["0", "513", "-1", "1.5", "\"8\""] {
            let body = format!(r#"{{"prompt": "a", "max_tokens": {bad}}}"#);
            check(&body, &[&format!("max_tokens is {bad}; "), "1 to 512"]);
        }
        check(r#"{"prompt": "a", "temperature": 2.1}"#, &["temperature is 2.1", "0 to 2"]);
        check(r#"{"prompt": "a", "session": "a b"}"#, &["session is \"a b\"", "1 to 64 letters"]);
        check(r#"{"prompt": "a", "stream": "yes"}"#, &["stream is \"yes\"", "true and false"]);
        check(r#"{"prompt": "a", "model": "big"}"#, &["model is \"big\"", "nemotron-stub"]);
        check(r#"{"prompt": "a", "max_token": 4}"#, &["max_token\"", "max_tokens"]);
    }

    fn parse(body: &str) -> Request {
        Request::parse(body.as_bytes()).expect("a request")
    }
}
