//! The library face: a Rust service embeds a node, with functions of its own beside the built-in ones.
//!
//! ```text
//! builder ─ config_file ─ function … ─▶ build: does it all fit together? ─▶ run, until told to end
//! ```
//!
//! What is here only names things and checks them; how a function runs is the gateway's
//! (`crates/edges/gateway/src/function.rs`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use hotpair_gateway::{Call, Catalogue, Does, FunctionError, Handler, Registered};
use serde_json::Value as Json;
use tokio::runtime::Handle;

use crate::commands;
use crate::config::{NodeConfig, functions};
use crate::settings;

/// What a function is called by.
///
/// Clients call it by its number, or by group, service, version and name. All of a pair's functions have
/// different numbers and names; both nodes must offer the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    number: u32,
    group: String,
    service: String,
    version: String,
    name: String,
    needs: Vec<String>,
}

impl Function {
    /// A function with this number, `group/service/version:name`.
    ///
    /// ```
    /// let place = hotpair::Function::new(330_001, "trade", "order", "1.0", "place");
    /// ```
    #[must_use]
    pub fn new(
        number: u32,
        group: impl Into<String>,
        service: impl Into<String>,
        version: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let (group, service) = (group.into(), service.into());
        Self { number, group, service, version: version.into(), name: name.into(), needs: vec![] }
    }

    /// It is not called before this dataset is loaded: its callers are told 308000008 or 308000011.
    #[must_use]
    pub fn needs(mut self, dataset: impl Into<String>) -> Self {
        self.needs.push(dataset.into());
        self
    }

    fn does(self, handler: impl Handler) -> Registered {
        let Self { number, group, service, version, name, needs } = self;
        let does = Does::Library(Arc::new(handler));
        Registered { number, group, service, version, name, needs, does }
    }
}

/// Why a node cannot be built, or did not run on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration cannot be used: every problem found, with file, key and value.
    #[error("{0}")]
    Configuration(String),
    /// The functions cannot be offered: two clash, or one names a dataset that is not configured.
    #[error("{0}")]
    Functions(String),
    /// It could not start (a port is taken, the data directory is in use …), or ended by a failure.
    #[error("{0}")]
    Run(String),
}

/// One node of a pair, within a program of yours.
///
/// ```no_run
/// use hotpair::{Call, Function, FunctionError, Json, Node};
///
/// /// Adds to a counter of the caller's own, and says what it is then.
/// fn count(call: &mut Call<'_>) -> Result<Json, FunctionError> {
///     let user = call.caller().map(|caller| caller.user.clone()).unwrap_or_default();
///     let count = call.get_json::<i64>("counters", &user)?.unwrap_or(0) + 1;
///     call.put_json("counters", &user, &count)?;
///     Ok(count.into())
/// }
///
/// fn main() -> Result<(), hotpair::NodeError> {
///     Node::builder()
///         .config_file("/etc/hotpair/a.toml")?
///         .function(Function::new(330_001, "trade", "counter", "1.0", "count"), count)
///         .run()
/// }
/// ```
///
/// A call's writes and its answer are one record, on both nodes before the client hears of it: sent again
/// after a failure, under its number, it is answered from there and not done twice. See
/// [`Call`] for what a function can look at and change.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    file: PathBuf,
    functions: Vec<Registered>,
}

impl Node {
    /// Begins with nothing but the built-in functions.
    pub fn builder() -> NodeBuilder {
        NodeBuilder { config: None, functions: Vec::new() }
    }

    /// Runs the node until the process is told to end (SIGTERM or SIGINT), which it does in order: it gives
    /// its mastership away first. To be called once in a process, and not from within a runtime.
    ///
    /// From then on a panic of any thread ends the process at once, but for panics of handlers, which are
    /// answered 308000009: a half-dead process would keep its peer from taking over. Log lines are events
    /// of `tracing`; where they go is the program's own affair.
    pub fn run(self) -> Result<(), NodeError> {
        crate::end_at_panics();
        let Self { config, file, functions } = self;
        let ended = commands::node::run_node(&config, &file, false, functions);
        ended.map(drop).map_err(|error| NodeError::Run(format!("{error:#}")))
    }
}

/// What a node is made of, until it is built.
#[derive(Debug)]
#[must_use]
pub struct NodeBuilder {
    config: Option<(NodeConfig, PathBuf)>,
    functions: Vec<Registered>,
}

impl NodeBuilder {
    /// Reads the configuration, the same file as `hotpair node --config` takes, with the environment's
    /// variables `HOTPAIR__…` over it.
    pub fn config_file(mut self, file: impl AsRef<Path>) -> Result<Self, NodeError> {
        let file = file.as_ref();
        let config =
            NodeConfig::read(file).map_err(|error| NodeError::Configuration(error.to_string()))?;
        self.config = Some((config, file.to_owned()));
        Ok(self)
    }

    /// Offers a function. The handler may block its thread; its panic is answered 308000009, and nothing of
    /// that call is done.
    pub fn function<H>(mut self, function: Function, handler: H) -> Self
    where
        H: Fn(&mut Call<'_>) -> Result<Json, FunctionError> + Send + Sync + 'static,
    {
        self.functions.push(function.does(handler));
        self
    }

    /// The same with a handler that awaits. It runs on a thread of its own, within the node's runtime (of
    /// tokio), and is dropped only at its end; what it spawns is not part of the call.
    ///
    /// ```
    /// # use hotpair::{Call, Function, FunctionError, Json, Node};
    /// async fn slow(call: &mut Call<'_>) -> Result<Json, FunctionError> {
    ///     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    ///     Ok(call.arguments().clone())
    /// }
    /// let builder = Node::builder()
    ///     .async_function(Function::new(330_002, "trade", "test", "1.0", "slow"), slow);
    /// ```
    pub fn async_function<H>(mut self, function: Function, handler: H) -> Self
    where
        H: AsyncFn(&mut Call<'_>) -> Result<Json, FunctionError> + Send + Sync + 'static,
    {
        let blocking =
            move |call: &mut Call<'_>| Handle::current().block_on(async { handler(call).await });
        self.functions.push(function.does(blocking));
        self
    }

    /// Whether it all fits together: a configuration is there, numbers and names are good and different,
    /// and each dataset that is needed is configured.
    pub fn build(self) -> Result<Node, NodeError> {
        let Self { config, functions } = self;
        let Some((config, file)) = config else {
            let what = "a node needs a configuration: call `config_file` before `build` or `run`";
            return Err(NodeError::Configuration(what.to_owned()));
        };
        settings::datasets(&config)
            .map_err(|problems| NodeError::Configuration(problems.join("\n")))?;
        check(&config, &functions).map_err(|problems| NodeError::Functions(problems.join("\n")))?;
        Ok(Node { config, file, functions })
    }

    /// [`build`](Self::build) and [`run`](Node::run).
    pub fn run(self) -> Result<(), NodeError> {
        self.build()?.run()
    }

    /// Is the whole `hotpair` program, with all its commands, and with these functions where it runs a node:
    /// the last call of a `main`. It reads the command line, and takes logs and panics in hand.
    #[must_use]
    pub fn command_line(self) -> ExitCode {
        crate::run_command_line(self.functions)
    }
}

/// Everything that is wrong with functions, in this configuration.
pub(crate) fn check(config: &NodeConfig, own: &[Registered]) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for function in own {
        functions::validate_names(function, &mut problems);
        functions::validate_needs(function, &config.datasets, &mut problems);
    }
    let sidecars = functions::placeholders(&config.functions);
    if let Err(clash) = Catalogue::with_library(own.iter().cloned().chain(sidecars)) {
        problems.push(clash.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
pair = "trade"
node = "a"
[listen]
client = "127.0.0.1:7100"
admin = "127.0.0.1:7101"
[coordinator]
kind = "standalone"
[[functions]]
number = 330009
group = "trade"
service = "order"
version = "1.0"
name = "cancel"
upstream = "http://127.0.0.1:9000/cancel"
"#;

    fn nothing(_: &mut Call<'_>) -> Result<Json, FunctionError> {
        Ok(Json::Null)
    }

    fn built(functions: Vec<Function>) -> Result<Node, NodeError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let builder = Node::builder().config_file(&file).unwrap();
        functions.into_iter().fold(builder, |b, function| b.function(function, nothing)).build()
    }

    #[test]
    fn functions_that_cannot_be_offered_are_named() {
        let place = || Function::new(330_001, "trade", "order", "1.0", "place");
        let node = built(vec![place()]).unwrap();
        assert_eq!(node.functions[0].number, 330_001);
        for (functions, says) in [
            (vec![place(), place()], "same number 330001"),
            (vec![Function::new(330_009, "trade", "order", "1.0", "other")], "330009"),
            (vec![Function::new(5, "trade", "order", "1.0", "cancel")], "trade/order/1.0:cancel"),
            (vec![Function::new(1001, "trade", "order", "1.0", "x")], "1001"),
            (vec![Function::new(5, "trade", "or der", "1.0", "x")], "\"or der\""),
            (vec![Function::new(5, "hotpair", "order", "1.0", "x")], "built-in"),
            (vec![place().needs("positions")], "\"positions\""),
        ] {
            match built(functions) {
                Err(NodeError::Functions(said)) => assert!(said.contains(says), "{says}: {said}"),
                other => panic!("{says}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_node_without_a_file_or_with_a_broken_one_is_not_built() {
        let none = Node::builder().build().unwrap_err();
        assert!(matches!(&none, NodeError::Configuration(said) if said.contains("config_file")));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "pear = 1\n").unwrap();
        let broken = Node::builder().config_file(&file).unwrap_err().to_string();
        assert!(broken.contains("a.toml") && broken.contains("pear"), "{broken}");
    }

    #[test]
    fn a_handler_that_awaits_is_a_handler() {
        async fn answer(call: &mut Call<'_>) -> Result<Json, FunctionError> {
            tokio::task::yield_now().await;
            Ok(call.arguments().clone())
        }
        let function = Function::new(5, "trade", "test", "1.0", "answer");
        let started = Arc::new(1);
        let builder = Node::builder().async_function(function.clone(), answer).async_function(
            Function { number: 6, name: "other".to_owned(), ..function },
            async move |_: &mut Call<'_>| {
                tokio::task::yield_now().await;
                Ok(Json::from(*started))
            },
        );
        assert_eq!(builder.functions.len(), 2);
    }
}
