//! The admin API of the nodes, as the commands ask it: all nodes at once, each within one limit.

use std::time::Duration;

use hotpair_http::{Dialler, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::origin::Origin;

/// Looks are answered by the control thread at once; a node that takes longer is not well.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// The nodes of a pair on one machine with the example configuration.
pub(crate) const DEFAULTS: [&str; 2] = ["127.0.0.1:7101", "127.0.0.1:7201"];
/// Characters of an unwanted answer that are shown.
const SHOWN_MAX: usize = 200;

/// The admin address of a node.
pub type AdminUrl = Origin;

/// What one node answered.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    pub(crate) admin: AdminUrl,
    /// The answer in our words and as it came, or why there is none.
    pub(crate) answer: Result<(T, Value), String>,
}

impl<T> Asked<T> {
    pub(crate) fn word(&self) -> Option<&T> {
        self.answer.as_ref().ok().map(|(word, _)| word)
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.answer.as_ref().err().map(String::as_str)
    }
}

/// GETs the same path of all nodes at once; answers in the order of the addresses.
pub(crate) async fn ask_all<T>(
    dialler: &Dialler,
    admins: &[AdminUrl],
    path: &'static str,
) -> Vec<Asked<T>>
where
    T: DeserializeOwned + Send + 'static,
{
    let questions: Vec<_> = admins
        .iter()
        .cloned()
        .map(|admin| {
            let dialler = dialler.clone();
            tokio::spawn(async move { ask(&dialler, admin, path).await })
        })
        .collect();
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        answers.push(question.await.expect("a question neither panics nor is cancelled"));
    }
    answers
}

async fn ask<T: DeserializeOwned>(dialler: &Dialler, admin: AdminUrl, path: &str) -> Asked<T> {
    let answer = match dialler.get(&admin.at(path), LOOK_WITHIN).await {
        Ok(answer) if answer.status == StatusCode::OK => read(&answer.body),
        Ok(answer) => Err(unwanted(answer.status, &answer.body)),
        Err(error) => Err(error.to_string()),
    };
    Asked { admin, answer }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<(T, Value), String> {
    let strange = |e: serde_json::Error| format!("it does not answer as a hotpair node does: {e}");
    let raw: Value = serde_json::from_slice(body).map_err(strange)?;
    let word = serde_json::from_slice(body).map_err(strange)?;
    Ok((word, raw))
}

/// A sentence about an answer that was not hoped for.
pub(crate) fn unwanted(status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(SHOWN_MAX).collect();
    format!("it answered {status}: {text}").trim_end_matches([':', ' ']).to_owned()
}
