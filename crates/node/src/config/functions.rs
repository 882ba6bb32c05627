//! `[[functions]]`: functions that a program beside the node serves, and what their values mean
//! together.

use std::time::Duration;

use hotpair_gateway::{Builtin, Catalogue, Does, Registered, Sidecar, SidecarSettings};
use serde::Deserialize;

use super::{DatasetConfig, Span, between};

/// One function.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FunctionConfig {
    /// What clients call it by; unique.
    pub(crate) number: u32,
    /// Its group, service and version, and its name, which is unique within these: what clients may call it
    /// by as well.
    pub(crate) group: String,
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) name: String,
    /// Where its program is asked, `http://host:port/path`.
    pub(crate) upstream: String,
    /// Datasets without which it is not called.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// How long a caller is let wait; too short tells callers 308000013 whose calls are done.
    #[serde(default = "default_timeout")]
    pub(crate) timeout: Span,
    /// The program may be called again with the same key. Written wrongly, effects are doubled.
    #[serde(default)]
    pub(crate) idempotent: bool,
    /// Calls of its program at a time.
    #[serde(default = "default_concurrency")]
    pub(crate) concurrency: usize,
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(2))
}

fn default_concurrency() -> usize {
    64
}

/// What the values mean together.
pub(super) fn validate(
    functions: &[FunctionConfig],
    datasets: &[DatasetConfig],
    insecure: bool,
    problems: &mut Vec<String>,
) {
    if functions.len() > FUNCTIONS_MAX {
        problems.push(format!("functions: {} of them; at most {FUNCTIONS_MAX}", functions.len()));
    }
    for function in functions {
        let number = function.number;
        let offered = registered(function, PLACEHOLDER);
        validate_names(&offered, problems);
        validate_needs(&offered, datasets, problems);
        validate_upstream(function, insecure, problems);
        let key = format!("functions {number}: timeout");
        between(problems, &key, function.timeout, 10, 600_000);
        if !(1..=CONCURRENCY_MAX).contains(&function.concurrency) {
            problems.push(format!(
                "functions {number}: concurrency = {}: must lie between 1 and {CONCURRENCY_MAX}",
                function.concurrency
            ));
        }
    }
    if let Err(clash) = Catalogue::with_library(placeholders(functions)) {
        problems.push(clash.to_string());
    }
}

/// The functions whatever they do: only numbers and names can clash.
pub(crate) fn placeholders(functions: &[FunctionConfig]) -> Vec<Registered> {
    functions.iter().map(|function| registered(function, PLACEHOLDER)).collect()
}

/// Datasets that are needed must be configured.
pub(crate) fn validate_needs(
    function: &Registered,
    datasets: &[DatasetConfig],
    problems: &mut Vec<String>,
) {
    let number = function.number;
    for needed in &function.needs {
        if !datasets.iter().any(|dataset| dataset.name == *needed) {
            let what =
                format!("functions {number}: needs {needed:?}, and no dataset has that name");
            problems.push(what);
        }
    }
}

/// Names that can stand in znodes and in `group/service/version:name`.
pub(crate) fn validate_names(function: &Registered, problems: &mut Vec<String>) {
    let Registered { number, group, service, version, name, .. } = function;
    for (key, value) in
        [("group", group), ("service", service), ("version", version), ("name", name)]
    {
        let known = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let good =
            (1..=64).contains(&value.len()) && value.chars().all(known) && !value.starts_with('.');
        if !good {
            problems.push(format!(
                "functions {number}: {key} = {value:?}: 1 to 64 letters, digits, - _ or ."
            ));
        }
    }
    if group == "hotpair" {
        problems.push(format!("functions {number}: group \"hotpair\" is for built-in functions"));
    }
}

fn validate_upstream(function: &FunctionConfig, insecure: bool, problems: &mut Vec<String>) {
    let (number, upstream) = (function.number, &function.upstream);
    let url: hotpair_http::Url = match upstream.parse() {
        Ok(url) => url,
        Err(error) => {
            problems.push(format!("functions {number}: upstream: {error}"));
            return;
        }
    };
    if url.secure {
        problems.push(format!(
            "functions {number}: upstream = {upstream:?}: programs are asked over http:// only"
        ));
        return;
    }
    let host = url.address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost"
        || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if !is_here && !insecure {
        problems.push(format!(
            "functions {number}: upstream = {upstream:?} is not on this machine: write \
             tls.insecure = true if plain text is meant"
        ));
    }
}

/// What both nodes must have alike, or the next master would offer something else, or call again what
/// must not be.
pub(super) fn put_into_digest(functions: &[FunctionConfig], text: &mut String) {
    for function in functions {
        let FunctionConfig { number, group, service, version, name, .. } = function;
        let FunctionConfig { needs, idempotent, .. } = function;
        let what = format!("{number}\0{group}/{service}/{version}:{name}\0{needs:?}\0{idempotent}");
        text.push('\0');
        text.push_str(&what);
    }
}

/// The functions as they are offered.
pub(crate) fn sidecars(functions: &[FunctionConfig]) -> anyhow::Result<Vec<Registered>> {
    let sidecar = |function: &FunctionConfig| {
        let sidecar = Sidecar::new(SidecarSettings {
            upstream: function.upstream.clone(),
            timeout: function.timeout.0,
            idempotent: function.idempotent,
            concurrency: function.concurrency,
        })?;
        Ok(registered(function, Does::Sidecar(sidecar.into())))
    };
    functions.iter().map(sidecar).collect()
}

fn registered(function: &FunctionConfig, does: Does) -> Registered {
    let FunctionConfig { number, group, service, version, name, needs, .. } = function.clone();
    Registered { number, group, service, version, name, needs, does }
}

const PLACEHOLDER: Does = Does::Builtin(Builtin::TestEcho);
const FUNCTIONS_MAX: usize = 1_024;
const CONCURRENCY_MAX: usize = 4_096;
