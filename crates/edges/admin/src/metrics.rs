//! `/metrics`: Prometheus' text format, version 0.0.4. The names are public and fixed.

use std::fmt::{self, Write};

use hotpair_core::pair::alert::AlertName;
use hotpair_core::pair::identity::{Epoch, Role};
use hotpair_protocol::RequestTotals;

use crate::service::{Live, TableFigures, UpstreamFigures};
use crate::snapshot::Snapshot;

/// Everything there is to scrape.
pub(crate) fn text(snapshot: &Snapshot, open: Option<Epoch>, live: &dyn Live) -> String {
    let pair = escaped(&snapshot.pair);
    let node = escaped(&snapshot.node);
    let labels = format!("pair=\"{pair}\",node=\"{node}\"");
    let mut page = Page { text: String::new(), labels };
    page.write(snapshot, open, &live.requests()).expect("writing to a String does not fail");
    page.tables(live.tables()).expect("writing to a String does not fail");
    if let Some(upstream) = live.upstream() {
        page.upstream(upstream).expect("writing to a String does not fail");
    }
    page.text
}

struct Page {
    text: String,
    /// `pair` and `node`, on every line.
    labels: String,
}

impl Page {
    fn write(
        &mut self,
        snapshot: &Snapshot,
        open: Option<Epoch>,
        requests: &RequestTotals,
    ) -> fmt::Result {
        let view = &snapshot.view;
        self.head("hotpair_role", "gauge", "1 for the role this node has")?;
        for role in [Role::Standby, Role::Promoting, Role::Master, Role::Demoting] {
            self.line("hotpair_role", &label("role", role.to_string()), flag(view.role == role))?;
        }
        self.one("hotpair_serving", "1 while this node serves", flag(snapshot.is_serving(open)))?;
        self.one("hotpair_epoch", "the epoch of this node, or the largest it knows", view.epoch)?;
        self.one("hotpair_peer_reachable", "1 while the peer answers", flag(view.peer.reachable))?;
        if let Some(offset_ms) = view.peer.clock_offset_ms {
            let seconds = format!("{}", offset_ms as f64 / 1000.0);
            self.one("hotpair_clock_offset_seconds", "the peer's clock minus ours", seconds)?;
        }
        self.requests(requests)?;
        self.head("hotpair_switches_total", "counter", "changes of role by their cause")?;
        for (cause, count) in &snapshot.switches {
            self.line("hotpair_switches_total", &label("cause", cause), count)?;
        }
        self.head("hotpair_phase_seconds", "gauge", "phases of the newest promotion here")?;
        for (phase, ms) in &view.phases {
            let seconds = *ms as f64 / 1000.0;
            self.line("hotpair_phase_seconds", &label("phase", phase.as_str()), seconds)?;
        }
        self.head("hotpair_alert", "gauge", "1 while the alert fires")?;
        for name in AlertName::ALL {
            let fires = snapshot.alerts.iter().any(|a| a.name == name && a.ended_wall_ms.is_none());
            self.line("hotpair_alert", &label("name", name.as_str()), flag(fires))?;
        }
        self.head("hotpair_dataset_rows", "gauge", "rows read or held")?;
        for dataset in &snapshot.datasets {
            self.line("hotpair_dataset_rows", &label("name", &dataset.name), dataset.rows)?;
        }
        self.feeds(snapshot)
    }

    fn feeds(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let fed = || snapshot.datasets.iter().filter_map(|d| Some((d, d.feed.as_ref()?)));
        if fed().next().is_none() {
            return Ok(());
        }
        let name = "hotpair_dataset_stale";
        self.head(name, "gauge", "1 while a dataset is held and misses updates of its feed")?;
        for (dataset, feed) in fed() {
            self.line(name, &label("name", &dataset.name), flag(feed.state == "stale"))?;
        }
        let name = "hotpair_dataset_as_of_seconds";
        self.head(name, "gauge", "when the newest update of a feed came, in seconds since 1970")?;
        for (dataset, _) in fed() {
            if let Some(as_of) = dataset.as_of {
                let seconds = as_of.time_ms as f64 / 1000.0;
                self.line(name, &label("name", &dataset.name), seconds)?;
            }
        }
        let name = "hotpair_dataset_updates_total";
        self.head(name, "counter", "updates of a feed by what became of them")?;
        for (dataset, feed) in fed() {
            let of =
                |result| format!("{}{}", label("name", &dataset.name), label("result", result));
            self.line(name, &of("applied"), feed.applied)?;
            self.line(name, &of("older"), feed.older)?;
            self.line(name, &of("refused"), feed.refused)?;
        }
        Ok(())
    }

    fn tables(&mut self, tables: TableFigures) -> fmt::Result {
        self.one("hotpair_sessions", "sessions in the tables", tables.sessions)?;
        if let Some(records) = tables.redo_lag_records {
            let what = "records written here that the peer does not hold yet";
            self.one("hotpair_redo_lag_records", what, records)?;
        }
        Ok(())
    }

    fn upstream(&mut self, upstream: UpstreamFigures) -> fmt::Result {
        let name = "hotpair_upstream_logins_total";
        self.head(name, "counter", "logins at the external investment system")?;
        self.line(name, &label("result", "done"), upstream.logins)?;
        self.line(name, &label("result", "failed"), upstream.logins_failed)?;
        let name = "hotpair_upstream_heartbeats_total";
        self.head(name, "counter", "heartbeats to the external investment system")?;
        self.line(name, &label("result", "done"), upstream.heartbeats)?;
        self.line(name, &label("result", "unknown"), upstream.unknown)?;
        self.line(name, &label("result", "failed"), upstream.failed)?;
        let name = "hotpair_upstream_skipped_seconds_total";
        self.head(name, "counter", "schedule of heartbeats left out: the system is too slow")?;
        self.line(name, "", upstream.skipped_ms as f64 / 1000.0)
    }

    fn requests(&mut self, requests: &RequestTotals) -> fmt::Result {
        self.head("hotpair_requests_total", "counter", "answers to clients by error number")?;
        for (error_no, count) in &requests.by_error_no {
            self.line("hotpair_requests_total", &label("error_no", error_no), count)?;
        }
        self.head("hotpair_request_seconds", "histogram", "how long answers took")?;
        for (limit, count) in &requests.seconds.buckets {
            self.line("hotpair_request_seconds_bucket", &label("le", limit), count)?;
        }
        let count = requests.seconds.count;
        self.line("hotpair_request_seconds_bucket", &label("le", "+Inf"), count)?;
        self.line("hotpair_request_seconds_sum", "", requests.seconds.sum)?;
        self.line("hotpair_request_seconds_count", "", count)
    }

    fn one(&mut self, name: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        self.line(name, "", value)
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn line(&mut self, name: &str, more: &str, value: impl fmt::Display) -> fmt::Result {
        let labels = &self.labels;
        writeln!(self.text, "{name}{{{labels}{more}}} {value}")
    }
}

/// A further label, with the comma before it.
fn label(name: &str, value: impl fmt::Display) -> String {
    format!(",{name}=\"{}\"", escaped(&value.to_string()))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(truth: bool) -> u8 {
    u8::from(truth)
}
