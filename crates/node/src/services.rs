//! Servers of other people: from the configuration to the governor, whose rows are a table like any
//! other, and whose right to act is the gate's.
//!
//! They have a thread of their own, so that a function that keeps all business workers busy does not
//! make a healthy server look dead.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hotpair_admin::{GovernedServices, ServiceOrder, ServiceOutcome};
use hotpair_core::pair::identity::Epoch;
use hotpair_core::services::governed::Members;
use hotpair_core::tables::SERVICES;
use hotpair_core::tables::change::{Operation, ReplyPlan, Request};
use hotpair_gateway::{Gate, Refused, Tables};
use hotpair_governor::{Check, Governor, OrderError, Records, ServiceSettings, Writing};
use hotpair_protocol::{ServiceBody, Services};
use tokio::sync::watch;

use crate::config::{NodeConfig, ServiceCheck, ServiceConfig};

/// Starts to look after the configured services; what operators see of them.
pub(crate) fn start(
    config: &NodeConfig,
    gate: Gate,
    tables: Tables,
) -> Result<Arc<dyn GovernedServices>> {
    let services =
        config.services.iter().map(settings).collect::<Result<Vec<ServiceSettings>>>()?;
    let records = Arc::new(Rows { tables, gate: gate.clone() });
    let (tell, serving) = watch::channel(None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Names that are looked up for checks and connections; more wait.
        .max_blocking_threads(LOOKUPS_MAX)
        .enable_all()
        .build()?;
    let idle = services.is_empty();
    let governor = {
        let _inside = runtime.enter();
        Governor::start(services, &serving, records)
    };
    if !idle {
        std::thread::Builder::new()
            .name("governor".to_owned())
            .spawn(move || runtime.block_on(follow(gate, tell)))?;
    }
    Ok(Arc::new(Governed(governor)))
}

/// Tells for ever whether this node serves. The gate is asked, not waited for: past its lease it is
/// closed with nobody awake to say so.
async fn follow(gate: Gate, tell: watch::Sender<Option<Epoch>>) {
    let mut turns = tokio::time::interval(LOOK_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let serving = gate.serving_epoch();
        tell.send_if_modified(|told| std::mem::replace(told, serving) != serving);
    }
}

fn settings(config: &ServiceConfig) -> Result<ServiceSettings> {
    let member = |address: &str| {
        address.parse().with_context(|| format!("services {:?}: validated before", config.name))
    };
    Ok(ServiceSettings {
        name: config.name.clone(),
        members: Members { primary: member(&config.primary)?, standby: member(&config.standby)? },
        check: match config.check {
            ServiceCheck::Tcp => Check::Tcp,
            ServiceCheck::Http => Check::Http,
            ServiceCheck::Vsoa => unreachable!("validated: checks that are not built are refused"),
        },
        interval: config.interval.0,
        proxy: config.proxy,
    })
}

/// Rows of the replicated table, by the service's name. They are written behind the gate as clients'
/// changes are, so that a drain waits for them and nothing is written after it.
#[derive(Debug)]
struct Rows {
    tables: Tables,
    gate: Gate,
}

impl Records for Rows {
    fn row(&self, service: &str) -> Option<Vec<u8>> {
        self.tables.look(|store| {
            let row = store.table(SERVICES)?.get(service.as_bytes())?;
            Some(row.value.to_vec())
        })
    }

    fn write(&self, epoch: Epoch, service: &str, row: Vec<u8>) -> Writing {
        let put = Operation::Put {
            table: SERVICES.into(),
            key: service.as_bytes().into(),
            value: row.into(),
        };
        let request = Request {
            ticket: 0,
            numbered: None,
            reads: Vec::new(),
            operations: vec![put],
            reply: ReplyPlan::Results,
        };
        let (tables, entered) = (self.tables.clone(), self.gate.enter());
        Box::pin(async move {
            let pass = entered.map_err(|refused| refused.to_string())?;
            if pass.epoch() != epoch {
                return Err(Refused::OtherEpoch.to_string());
            }
            tables.commit(epoch, request).await.map(drop).map_err(|error| error.to_string())
        })
    }
}

/// The governor as operators meet it.
#[derive(Debug)]
struct Governed(Governor);

impl GovernedServices for Governed {
    fn list(&self) -> Services {
        self.0.list()
    }

    fn order(self: Arc<Self>, name: String, body: ServiceBody) -> ServiceOrder {
        Box::pin(async move {
            match self.0.order(&name, &body).await {
                Ok(text) => ServiceOutcome::Done(text),
                Err(error) => {
                    let text = error.to_string();
                    match error {
                        OrderError::NoService(_) => ServiceOutcome::Unknown(text),
                        OrderError::Malformed(_) => ServiceOutcome::Malformed(text),
                        OrderError::Refused(_) => ServiceOutcome::Refused(text),
                        OrderError::Busy | OrderError::TimedOut(_) => {
                            ServiceOutcome::Unavailable(text)
                        }
                    }
                }
            }
        })
    }
}

/// How often the gate is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKUPS_MAX: usize = 64;
