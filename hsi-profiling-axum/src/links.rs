//! Where Grafana and Pyroscope show the same view.
//!
//! The data source has the uid that our own provisioning gives it, `pyroscope`. Nothing here asks
//! whether anything answers there, or whether this service's profiles are pushed to it.

use crate::view::View;
use hsi_profiling::ProfileType;
use serde_json::json;

/// The addresses of Grafana and Pyroscope.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    grafana: String,
    pyroscope: String,
}

impl Links {
    pub(crate) fn new(grafana: Option<&str>, pyroscope: Option<&str>) -> Self {
        let base = |url: Option<&str>, default: &str| {
            url.unwrap_or(default).trim_end_matches('/').to_owned()
        };
        Self {
            grafana: base(grafana, DEFAULT_GRAFANA),
            pyroscope: base(pyroscope, DEFAULT_PYROSCOPE),
        }
    }

    /// The view in Grafana's application for profiles.
    pub(crate) fn grafana(&self, service: &str, view: &View) -> String {
        let (from, to) = view.window.grafana();
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("var-dataSource", DATA_SOURCE)
            .append_pair("var-serviceName", service)
            .append_pair("var-profileMetricId", type_id(view.profile_type))
            .append_pair("explorationType", "flame-graph")
            .append_pair("from", &from)
            .append_pair("to", &to);
        for (key, value) in view.labels() {
            query.append_pair("var-filters", &format!("{key}|=|{value}"));
        }
        format!("{}/a/grafana-pyroscope-app/explore?{}", self.grafana, query.finish())
    }

    /// The view in Grafana's Explore.
    pub(crate) fn explore(&self, service: &str, view: &View) -> String {
        let (from, to) = view.window.grafana();
        let panes = json!({"hsi": {
            "datasource": DATA_SOURCE,
            "queries": [{
                "refId": "A",
                "datasource": {"type": "grafana-pyroscope-datasource", "uid": DATA_SOURCE},
                "queryType": "both",
                "profileTypeId": type_id(view.profile_type),
                "labelSelector": selector(service, view),
                "groupBy": [],
            }],
            "range": {"from": from, "to": to},
        }});
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("schemaVersion", "1")
            .append_pair("orgId", "1")
            .append_pair("panes", &panes.to_string())
            .finish();
        format!("{}/explore?{query}", self.grafana)
    }

    /// Pyroscope's own page; it keeps no view in its address.
    pub(crate) fn pyroscope(&self) -> String {
        format!("{}/", self.pyroscope)
    }
}

/// A Grafana behind the same proxy as the service.
const DEFAULT_GRAFANA: &str = "/grafana";
const DEFAULT_PYROSCOPE: &str = "http://localhost:4040";
const DATA_SOURCE: &str = "pyroscope";

/// Scheme, host and port of a URL; a path has none.
pub(crate) fn origin(url: &str) -> Option<&str> {
    let authority = url.find("://")? + "://".len();
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |end| authority + end);
    url.get(..end).filter(|_| end > authority)
}

/// Pyroscope's name for a kind of profile.
fn type_id(profile_type: ProfileType) -> &'static str {
    match profile_type {
        ProfileType::Cpu => "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        _ => "",
    }
}

fn selector(service: &str, view: &View) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut selector = format!("{{service_name=\"{}\"", quoted(service));
    for (key, value) in view.labels() {
        selector += &format!(",{key}=\"{}\"", quoted(value));
    }
    selector + "}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Fields;
    use hsi_profiling::Timestamp;
    use std::collections::HashMap;

    fn view(query: &str) -> View {
        let now = Timestamp::from_unix_millis(1_767_225_600_000);
        View::parse(&Fields::parse(Some(query)), "a \"b\"", now).unwrap()
    }

    fn fields(url: &str) -> HashMap<String, String> {
        let (_, query) = url.split_once('?').unwrap();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    #[test]
    fn explore_gets_service_type_range_and_labels() {
        let links = Links::new(Some("https://g.example/grafana"), None);
        let url = links.explore("a \"b\"", &view("range=1h&thread=t"));
        assert!(url.starts_with("https://g.example/grafana/explore?schemaVersion=1"), "{url}");
        assert!(!url.contains(['"', '{', ' ']), "{url}");
        let panes: serde_json::Value = serde_json::from_str(&fields(&url)["panes"]).unwrap();
        let query = &panes["hsi"]["queries"][0];
        assert_eq!(query["labelSelector"], r#"{service_name="a \"b\"",thread="t"}"#);
        assert_eq!(query["profileTypeId"], "process_cpu:cpu:nanoseconds:cpu:nanoseconds");
        assert_eq!(panes["hsi"]["range"], json!({"from": "now-1h", "to": "now"}));
    }

    #[test]
    fn grafana_and_pyroscope_have_defaults() {
        let links = Links::new(None, None);
        let url = links.grafana("a \"b\"", &view("from=-1m&to=now&thread=t"));
        assert!(url.starts_with("/grafana/a/grafana-pyroscope-app/explore?"), "{url}");
        let fields = fields(&url);
        assert_eq!(fields["var-serviceName"], "a \"b\"");
        assert_eq!(fields["var-filters"], "thread|=|t");
        assert_eq!((&*fields["from"], &*fields["to"]), ("1767225540000", "1767225600000"));
        assert_eq!(links.pyroscope(), "http://localhost:4040/");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (url, want) in [
            ("https://g.example:3000/grafana", Some("https://g.example:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("https://g.example?x", Some("https://g.example")),
            ("/grafana", None),
            ("https://", None),
        ] {
            assert_eq!(origin(url), want, "{url}");
        }
    }
}
